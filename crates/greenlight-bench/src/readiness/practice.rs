//! Today's practice, twice on this machine: an nginx in front of an old and a new application,
//! and a script that asks the new one, rewrites the upstream and reloads.

use crate::machine::{Machine, Weight};
use crate::{Outcome, Setting};
use greenlight_ports::reserve_address;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Two machines.
pub(super) struct Practice {
    machines: [Machine; 2],
    deployments: usize,
}

impl Practice {
    /// Starts both machines with a first version.
    pub(super) async fn start(setting: &Setting) -> Outcome<Self> {
        let mut machines = [Machine::new(setting)?, Machine::new(setting)?];
        for machine in &mut machines {
            let address = reserve_address()?;
            machine.application =
                Some(machine.start_application(address, "first", Weight::NONE)?);
            super::answers(address).await?;
            machine.serve(address)?;
            super::serves_only(machine.front, "first").await?;
        }
        Ok(Self {
            machines,
            deployments: 0,
        })
    }

    /// Deploys a version that takes `startup` to start, with scripts that first ask after these
    /// times. Returns the wait.
    pub(super) async fn deploy(
        &mut self,
        startup: Duration,
        phases: [Duration; 2],
    ) -> Outcome<Duration> {
        self.deployments += 1;
        let version = format!("v{}", self.deployments);
        let mut coming = Vec::new();
        for machine in &self.machines {
            let address = reserve_address()?;
            let weight = Weight {
                startup,
                ..Weight::NONE
            };
            let child = machine.start_application(address, &version, weight)?;
            coming.push((child, address));
        }
        let addresses: Vec<_> = coming.iter().map(|(_, address)| *address).collect();
        let fronts = self.machines.iter().map(|machine| machine.front).collect();
        let watched = super::wait_between(addresses.clone(), fronts, &version);
        let [one, other] = &self.machines;
        let scripts = async {
            tokio::try_join!(
                one.switch_when_healthy(addresses[0], phases[0], super::POLL),
                other.switch_when_healthy(addresses[1], phases[1], super::POLL)
            )
        };
        let (wait, _) = tokio::try_join!(watched, scripts)?;
        for (machine, (child, _)) in self.machines.iter_mut().zip(coming) {
            machine.application = Some(child);
        }
        Ok(wait)
    }
}

/// Which release answers a new connection.
pub(super) async fn release_at(front: SocketAddr) -> Outcome<String> {
    let mut stream = TcpStream::connect(front).await?;
    let request = format!("GET / HTTP/1.1\r\nHost: {front}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    response.parse(&answer)?;
    let mut headers = response.headers.iter();
    let release = headers.find(|header| header.name.eq_ignore_ascii_case("x-release"));
    let release = release.ok_or("an answer names no release")?;
    Ok(String::from_utf8_lossy(release.value).into_owned())
}
