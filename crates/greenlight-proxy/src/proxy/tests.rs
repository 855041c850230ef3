//! Commands to a proxy whose disk fails.

use super::*;
use crate::Limits;
use crate::state_file::State;
use crate::state_file::bad_disk::BadDisk;
use greenlight_admin::{
    AdminClient, AdminError, Color, OpenRequest, ServiceSettings, ServiceStatus,
};
use greenlight_gate::Mode;
use std::collections::BTreeMap;

#[tokio::test]
async fn an_order_that_cannot_be_kept_is_refused_and_leaves_the_routing_as_it_was() {
    let lab = Lab::start().await;
    let before = lab.services().await;

    // Writing, syncing the file, putting it in its place, syncing the folder.
    for failing in 0..4 {
        lab.disk.fail_at(failing);
        refused(lab.admin.define("shop", &settings(3)).await);
        assert_eq!(lab.services().await, before);
        lab.disk.fail_at(failing);
        refused(lab.admin.define("mail", &settings(3)).await);
        assert_eq!(lab.services().await, before);
        lab.disk.fail_at(failing);
        refused(lab.admin.remove("shop").await);
        assert_eq!(lab.services().await, before);
    }

    lab.open(2, Color::Green).await.expect("a good disk");
    let kept = lab.kept();
    assert_eq!(kept.services.keys().collect::<Vec<_>>(), ["shop"]);
    assert_eq!(kept.services["shop"].settings, settings(1));
    lab.end().await;
}

#[tokio::test]
async fn an_opening_that_cannot_be_kept_is_refused_and_stands_and_is_kept_once_it_is_asked_again() {
    let lab = Lab::start().await;
    lab.open(1, Color::Blue).await.expect("a good disk");

    lab.disk.fail_at(1);
    refused(lab.open(2, Color::Green).await);
    // G1: requests may have come to green, so nothing goes back to blue.
    assert_eq!(lab.services().await["shop"].color, Some(Color::Green));
    assert_eq!(
        lab.kept().services["shop"].mode,
        Mode::Open { color: Color::Blue }
    );

    lab.open(2, Color::Green).await.expect("a good disk");
    let kept = lab.kept();
    assert_eq!(
        kept.services["shop"].mode,
        Mode::Open {
            color: Color::Green
        }
    );
    assert_eq!(kept.services["shop"].opened, 2);
    lab.end().await;
}

/// A proxy on a disk that can fail, with one service, `shop`.
struct Lab {
    proxy: RunningProxy,
    admin: AdminClient,
    disk: Arc<BadDisk>,
    file: StateFile,
    _folder: tempfile::TempDir,
}

impl Lab {
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let any = "127.0.0.1:0".parse().expect("an address");
        let options = ProxyOptions {
            listen: vec![Address::Tcp(any)],
            socket_group: None,
            admin: folder.path().join("admin.sock"),
            state: folder.path().join("routing"),
            status: None,
            threads: 1,
            limits: Limits::default(),
            if_running: IfRunning::Fail,
        };
        let disk = Arc::new(BadDisk::default());
        let file = StateFile::on(options.state.clone(), disk.clone());
        let sockets = Sockets::open(&options, None).expect("free places");
        let proxy =
            RunningProxy::prepare(&options, file.clone(), HandoverState::default(), sockets);
        let lab = Self {
            proxy: proxy.expect("a proxy").serve(),
            admin: AdminClient::new(&options.admin),
            disk,
            file,
            _folder: folder,
        };
        let defined = lab.admin.define("shop", &settings(1)).await;
        defined.expect("a good disk");
        lab.disk.take_steps();
        lab
    }

    async fn open(&self, epoch: u64, color: Color) -> Result<(), AdminError> {
        let services = [("shop".to_owned(), Some(color))].into();
        let opened = self.admin.open(&OpenRequest { epoch, services }).await;
        self.disk.take_steps();
        opened.map(|_| ())
    }

    async fn services(&self) -> BTreeMap<String, ServiceStatus> {
        self.disk.take_steps();
        self.admin.status().await.expect("it answers").services
    }

    fn kept(&self) -> State {
        self.file.load().expect("a good file")
    }

    async fn end(self) {
        let stopping = tokio::task::spawn_blocking(|| self.proxy.stop());
        stopping.await.expect("it ends");
    }
}

fn settings(port: u16) -> ServiceSettings {
    ServiceSettings {
        hosts: Vec::new(),
        path_prefix: "/".to_owned(),
        blue: format!("127.0.0.1:{port}"),
        green: "127.0.0.1:2".to_owned(),
        request_timeout_ms: 1000,
    }
}

fn refused<T>(answer: Result<T, AdminError>) {
    let error = answer.err().expect("it cannot be kept").to_string();
    assert!(error.contains("cannot keep the routing state"), "{error}");
    assert!(error.contains("the disk is broken"), "{error}");
}
