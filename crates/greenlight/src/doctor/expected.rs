//! What the configuration file wants of one instance, as the doctor needs it.

use greenlight_config::{Config, InstanceConfig};
use greenlight_link::doctor::{Expected, ExpectedNginx, ExpectedService};
use greenlight_release::front::FrontKind;
use greenlight_release::nginx::ValueError;
use greenlight_release::spec::Artifact;

/// What a file wants of one of its instances.
pub fn expected_of(config: &Config, instance: &InstanceConfig) -> Result<Expected, ValueError> {
    let services = config.services.iter().map(|(name, service)| {
        let (image, memory) = match &service.artifact {
            Artifact::Command { .. } => (None, None),
            Artifact::Image(image) => {
                let memory = image.memory.map(|memory| memory.0);
                (Some(image.image.clone()), memory)
            }
        };
        let expected = ExpectedService {
            ports: instance.ports[name],
            image,
            memory,
        };
        (name.clone(), expected)
    });
    let nginx = match config.front {
        FrontKind::Builtin => None,
        FrontKind::Nginx | FrontKind::NginxReload => {
            let at = config.nginx_of(instance)?;
            Some(ExpectedNginx {
                binary: at.binary,
                conf: at.conf,
                pid: at.pid,
                include: at.include.as_path().to_owned(),
                verify_port: at.verify_port,
                forward_headers: config.nginx.forward_headers,
            })
        }
    };
    Ok(Expected {
        front: config.front,
        port: instance.port,
        services: services.collect(),
        nginx,
    })
}
