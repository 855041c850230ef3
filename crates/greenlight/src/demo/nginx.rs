//! The Nginx of a demo's instance: on the public address, with our include in it.

use super::DemoError;
use super::stage::SERVICE;
use crate::fleet::free_address;
use crate::front::FrontKind;
use crate::nginx::{
    AttachError, Attachment, ForwardHeaders, Include, Label, Nginx, NginxPath, PrivateNginx,
    Target, Upstream, put,
};
use crate::spec::PortPair;
use std::net::SocketAddr;
use std::path::Path;

/// What is written for the Nginx of one instance, before it starts.
pub(super) struct Written {
    pub(super) nginx: Nginx,
    pub(super) include: NginxPath,
}

/// Writes the configuration of an instance's Nginx into `dir`, with the files that attaching
/// would write.
pub(super) fn write(
    dir: &Path,
    front: FrontKind,
    listen: SocketAddr,
    gate: &Path,
    ports: PortPair,
) -> Result<Written, DemoError> {
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
            verify_port: free_address()?.port(),
            forward_headers: ForwardHeaders::No,
            upstreams: [(Label::new(SERVICE)?, upstream)].into(),
        },
    };
    for change in attachment.changes()? {
        put(&change.path, &change.after).map_err(AttachError::Nginx)?;
    }
    Ok(Written {
        nginx,
        include: attachment.include,
    })
}
