//! The Nginx of an instance of the demo, and of the benchmarks: on the public address, with our
//! include in it.

use super::{DemoError, SERVICE};
use greenlight_agent::nginx::{
    AttachError, Attachment, Include, Nginx, PrivateNginx, Target, Upstream, put,
};
use greenlight_ports::reserve_port;
use greenlight_release::front::FrontKind;
use greenlight_release::nginx::{ForwardHeaders, Label, NginxPath};
use greenlight_release::ports::PortPair;
use std::net::SocketAddr;
use std::path::Path;

/// What is written for the Nginx of one instance, before it starts.
pub struct WrittenNginx {
    /// Where it is.
    pub nginx: Nginx,
    /// Our file, which it includes.
    pub include: NginxPath,
}

/// Writes the configuration of an instance's Nginx into `dir`, with the files that attaching
/// would write. `gate` is the socket of the proxy behind it, if there is one.
pub fn write_nginx(
    dir: &Path,
    front: FrontKind,
    listen: SocketAddr,
    gate: &Path,
    ports: PortPair,
) -> Result<WrittenNginx, DemoError> {
    std::fs::create_dir_all(dir)?;
    let dir = dir.canonicalize()?;
    let upstream = match front {
        FrontKind::Builtin | FrontKind::Nginx => Upstream::Gate(NginxPath::socket(gate)?),
        FrontKind::NginxReload => Upstream::Slots {
            blue: ports.blue,
            green: ports.green,
            to: Target::Parked,
        },
    };
    let server = format!(
        "    server {{\n        listen {listen} backlog=4096;\n        location / {{\n            \
         include {}/conf.d/greenlight_{SERVICE}.location;\n        }}\n    }}",
        dir.display()
    );
    let nginx = PrivateNginx::write(&dir, "", &server)?;
    let attachment = Attachment {
        nginx: nginx.clone(),
        include: NginxPath::new(&dir.join("conf.d/greenlight.conf"))?,
        wanted: Include {
            generation: 0,
            verify_port: reserve_port()?,
            forward_headers: ForwardHeaders::No,
            upstreams: [(Label::new(SERVICE)?, upstream)].into(),
        },
    };
    for change in attachment.changes()? {
        put(&change.path, &change.after).map_err(AttachError::Nginx)?;
    }
    Ok(WrittenNginx {
        nginx,
        include: attachment.include,
    })
}
