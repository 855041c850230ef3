//! Kamal's `config/deploy.yml`, of Kamal 2 and, where it differs, of Kamal 1.
//!
//! The web role becomes the service. Other roles and accessories serve no requests and stay with
//! Kamal, which continues to work beside Greenlight.

mod parts;
mod roles;
mod ruby;

pub(super) use ruby::without_ruby;

use super::draft::{Draft, Noted, RegistryDraft, ServiceDraft, label};
use super::scalar::Scalar;
use super::section::{Section, text_of};
use super::unsupported::UnsupportedKeys;
use super::{ImportError, Source};
use parts::{environment, logging, pairs, scalars, seconds, written};
use serde_json::Value;

const AT_THE_TOP: &[(&str, &str)] = &[
    ("minimum_version", ""),
    ("primary_role", ""),
    ("allow_empty_roles", ""),
    ("run_directory", ""),
    (
        "builder",
        "greenlight runs images and does not build them; build and push in the CI job before, or with \
         `kamal build push`",
    ),
    ("ssh", "nothing goes over SSH; agents connect to the server"),
    (
        "sshkit",
        "nothing goes over SSH; agents connect to the server",
    ),
    ("boot", "all instances switch together"),
    ("aliases", "they are commands of Kamal"),
    (
        "asset_path",
        "pages of the old release may ask the new one for files that it lacks; serve assets from where \
         both releases have them, such as a CDN",
    ),
    (
        "hooks_path",
        "greenlight runs no hooks; do it in the CI job, and migrations with `before_switch`",
    ),
    (
        "secrets_path",
        "secrets come from the environment of the deploy command",
    ),
    (
        "require_destination",
        "each destination is a `greenlight.yml` of its own; choose it with `--file`",
    ),
    (
        "readiness_delay",
        "a release is ready when its health check says so",
    ),
    (
        "error_pages_path",
        "greenlight's proxy has no pages of its own",
    ),
    (
        "traefik",
        "greenlight's own proxy takes its place; TLS must end before it",
    ),
    ("output", ""),
];

const TLS: &str = "TLS must end before greenlight's proxy, at a load balancer or Nginx";

const PROXY: &[(&str, &str)] = &[
    ("ssl", TLS),
    ("ssl_redirect", TLS),
    (
        "buffering",
        "greenlight's proxy passes bodies on as they come",
    ),
    ("logging", "greenlight's proxy keeps no access log"),
    (
        "forward_headers",
        "greenlight's proxy sets the forwarding headers itself",
    ),
    ("strip_path_prefix", ""),
    ("run", "greenlight's proxy is started by `greenlight proxy`"),
];

/// Reads a file whose Ruby has been replaced. `name` replaces that of the service.
pub(super) fn draft(
    file: &Value,
    name: Option<&str>,
    unsupported: &mut UnsupportedKeys,
) -> Result<Draft, ImportError> {
    let mut top = Section::whole(file);
    let missing = ImportError::NotThatTool("service", Source::Kamal);
    let own_name = top.text("service", unsupported);
    let own_name = own_name.or(name.map(ToOwned::to_owned)).ok_or(missing)?;
    let mut draft = Draft::default();
    let mut service = ServiceDraft {
        name: label(name.unwrap_or(&own_name)),
        ..ServiceDraft::default()
    };
    if service.name != own_name {
        let why = format!(
            "it is called `{}` here, because names have lowercase letters, digits and hyphens",
            service.name
        );
        unsupported.add("service", why);
    }
    image(&mut top, &own_name, &mut service, &mut draft, unsupported);
    service.labels = pairs(&mut top, "labels", unsupported);
    service.volumes = Noted {
        value: scalars(&mut top, "volumes", unsupported),
        note: Some("Blue and green run at the same time, and share them.".to_owned()),
    };
    service.logging = logging(&mut top, unsupported);
    if let Some(env) = top.section("env", unsupported) {
        environment(env, &mut service, unsupported);
    }
    roles::servers(&mut top, &mut service, &mut draft, unsupported);
    proxy(&mut top, &mut service, unsupported);
    accessories(&mut top, &mut service, unsupported);
    draft.drain_timeout = seconds(&mut top, "drain_timeout", unsupported);
    draft.deploy_timeout = seconds(&mut top, "deploy_timeout", unsupported);
    draft.stop_timeout = seconds(&mut top, "stop_wait_time", unsupported);
    draft.retain_containers = top.count("retain_containers", unsupported);
    top.leave(AT_THE_TOP, unsupported);
    draft.services.push(service);
    Ok(draft)
}

fn image(
    top: &mut Section,
    own_name: &str,
    service: &mut ServiceDraft,
    draft: &mut Draft,
    unsupported: &mut UnsupportedKeys,
) {
    let image = top.text("image", unsupported);
    let image = image.unwrap_or_else(|| own_name.to_owned());
    let mut server = None;
    if let Some(mut registry) = top.section("registry", unsupported) {
        server = registry.text("server", unsupported);
        if server
            .as_deref()
            .is_some_and(|server| server.starts_with("localhost"))
        {
            let why =
                "it is on the machine that Kamal runs on; use one that every instance reaches";
            unsupported.add(registry.path("server"), why);
        }
        draft.registry = login(&mut registry, server.as_deref(), unsupported);
        registry.leave(&[], unsupported);
    }
    let image = match &server {
        Some(server) if !image.starts_with(&format!("{server}/")) => format!("{server}/{image}"),
        Some(_) | None => image,
    };
    let note = "Kamal tags images with the whole commit; `greenlight deploy --version \"$(git \
                rev-parse HEAD)\"` deploys one of them.";
    service.image = Noted {
        value: ruby::scalar(&image),
        note: Some(note.to_owned()),
    };
    if service.image.value.is_none() {
        unsupported.add("image", ruby::UNWRITABLE);
        service.image.value = Scalar::literal(&format!("registry.example.com/{}", service.name));
    }
}

/// The user name, and the variable with the password. A registry may need neither.
fn login(
    registry: &mut Section,
    server: Option<&str>,
    unsupported: &mut UnsupportedKeys,
) -> Option<RegistryDraft> {
    let username = registry.take("username")?;
    let username = match username.as_array() {
        // A list names a secret.
        Some(names) => Scalar::replaced(&format!("${{{}}}", names.first()?.as_str()?)),
        None => text_of(&username).and_then(|name| ruby::scalar(&name)),
    };
    if username.is_none() {
        unsupported.add(registry.path("username"), ruby::UNWRITABLE);
    }
    let password = match registry.take("password") {
        Some(Value::Array(names)) => names.first().and_then(Value::as_str).map(ToOwned::to_owned),
        Some(value) => text_of(&value).and_then(|text| ruby::only(&text)),
        None => None,
    };
    let password = password.unwrap_or_else(|| {
        let why = "keep it out of files; put it into the variable `KAMAL_REGISTRY_PASSWORD`";
        unsupported.add(registry.path("password"), why);
        "KAMAL_REGISTRY_PASSWORD".to_owned()
    });
    Some(RegistryDraft {
        server: server.and_then(ruby::scalar),
        username: username?,
        password: Scalar::literal(&password)?,
    })
}

fn proxy(top: &mut Section, service: &mut ServiceDraft, unsupported: &mut UnsupportedKeys) {
    // Kamal 1 has the health check at the top.
    let mut checks = vec![top.section("healthcheck", unsupported)];
    let mut app_port = None;
    if top.word("proxy") == Some(false) {
        unsupported.add(
            "proxy",
            "greenlight cannot switch without a proxy, so it uses its own",
        );
    }
    if let Some(mut proxy) = top.section("proxy", unsupported) {
        let mut hosts = proxy.texts("host", unsupported);
        hosts.extend(proxy.texts("hosts", unsupported));
        for host in hosts.iter().flat_map(|hosts| hosts.split(',')) {
            match ruby::scalar(host.trim()) {
                Some(host) => service.hosts.value.push(host),
                None => unsupported.add(proxy.path("host"), ruby::UNWRITABLE),
            }
        }
        app_port = proxy.text("app_port", unsupported);
        service.request_timeout = seconds(&mut proxy, "response_timeout", unsupported);
        let mut prefixes = proxy.texts("path_prefix", unsupported);
        prefixes.extend(proxy.texts("path_prefixes", unsupported));
        let stripped = proxy
            .text("strip_path_prefix", unsupported)
            .is_none_or(|word| word != "false");
        if let (Some(prefix), true) = (prefixes.first(), stripped) {
            let why = format!(
                "kamal-proxy takes `{prefix}` off the path; greenlight passes on the whole path, so \
                 the application must know it"
            );
            unsupported.add(proxy.path("path_prefix"), why);
        }
        for prefix in prefixes.iter().skip(1) {
            let why = format!("a service has one prefix; `{prefix}` is not routed to it");
            unsupported.add(proxy.path("path_prefix"), why);
        }
        service.path_prefix = prefixes.first().and_then(|prefix| ruby::scalar(prefix));
        checks.push(proxy.section("healthcheck", unsupported));
        if proxy.word("ssl") == Some(true) {
            unsupported.add(proxy.path("ssl"), TLS);
        }
        proxy.leave(PROXY, unsupported);
    }
    for mut check in checks.into_iter().flatten() {
        service.health.path.value = written(&mut check, "path", unsupported);
        service.health.interval = seconds(&mut check, "interval", unsupported);
        service.health.timeout = seconds(&mut check, "timeout", unsupported);
        app_port = app_port.or(check.text("port", unsupported));
        let command = "greenlight asks over HTTP and runs no command";
        check.leave(
            &[
                ("cmd", command),
                (
                    "max_attempts",
                    "a release may fail its check for as long as `deploy_timeout`",
                ),
                ("exposed_port", ""),
                ("cord", ""),
                ("log_lines", ""),
            ],
            unsupported,
        );
    }
    let given = app_port.as_deref().and_then(|port| port.parse().ok());
    if let (Some(text), None) = (&app_port, given) {
        unsupported.add(
            "proxy.app_port",
            format!("`{text}` is no number; Kamal's default is written"),
        );
    }
    service.app_port = Noted {
        value: given.or(Some(80)),
        note: Some("The port that it listens on inside its container.".to_owned()),
    };
}

fn accessories(top: &mut Section, service: &mut ServiceDraft, unsupported: &mut UnsupportedKeys) {
    let Some(mut accessories) = top.section("accessories", unsupported) else {
        return;
    };
    if service.networks.value.is_empty() {
        service.networks = Noted {
            value: Scalar::literal("kamal").into_iter().collect(),
            note: Some(
                "Kamal's own network, on which the accessories have their names.".to_owned(),
            ),
        };
    }
    for (name, mut accessory) in accessories.sections() {
        let image = accessory.text("image", unsupported);
        let image = image.map_or_else(String::new, |image| format!(" (`{image}`)"));
        let why =
            format!("greenlight runs what serves requests; keep it{image} with `kamal accessory`");
        unsupported.add(format!("accessories.{name}"), why);
    }
    accessories.leave(&[], unsupported);
}
