//! What a file means once it is read.

use super::parse;
use crate::Config;
use crate::secret_source::SecretSource;
use greenlight_protocol::policy::{Exclusive, PeerChecks};
use greenlight_protocol::{InstanceId, OnUncertain, Policy, ServiceName};
use greenlight_release::front::FrontKind;
use greenlight_release::nginx::ForwardHeaders;
use greenlight_release::ports::{PortPair, RequestedPorts};
use greenlight_release::spec::Artifact;
use std::path::Path;
use std::time::Duration;

/// Every key that there is, each with a value that is not its default.
const FULL: &str = r#"
service: shop
command: ["./shop", "--port", "${PORT}"]
servers:
  - 10.0.0.11
  - { name: second, host: 10.0.0.12, port: 8000, ports: { blue: 9080, green: 9081 } }
proxy:
  front: nginx
  nginx:
    include: /srv/{instance}/greenlight.conf
    conf: /srv/nginx.conf
    pid: /srv/nginx.pid
    binary: /opt/nginx
    verify_port: 9000
    forward_headers: true
    group: www-data
  hosts: [Shop.Example.com, "*.shop.example.com"]
  path_prefix: /shop
  port: 81
  ports: { blue: 7080, green: 7081 }
  healthcheck:
    path: /healthy
    host: inside.example.com
    interval: 3
    timeout: 1500ms
    successes: 3
    failures: 5
    statuses: [204, "300-399"]
  request_timeout: 1m
env:
  clear: { LEVEL: info, LISTEN: "0.0.0.0:${PORT}" }
  secret: [TOKEN]
strategy: blue_green
cutover: { hold_budget: 100ms, max_hold: 1s, on_uncertain: shed, exclusive: true }
watch: 2m
keep_warm: 1h
drain_timeout: 45s
stop_timeout: 20s
deploy_timeout: 10m
retain_containers: 2
registry: { server: ghcr.io, username: ci, password: [REGISTRY_PASSWORD] }
setup:
  server: 10.0.0.10:9800
  ssh: { user: deploy, port: 2222, identity: ~/.ssh/deploy, options: [ProxyJump=bastion] }
x-anything: { is: ignored }
"#;

#[test]
fn every_key_arrives_where_it_is_meant() {
    let config = parse(FULL).expect("a good file");

    let service = &config.services[&ServiceName::from("shop")];
    let command = ["./shop", "--port", "${PORT}"].map(ToOwned::to_owned);
    assert_eq!(service.artifact, Artifact::command(command.to_vec()));
    assert_eq!(service.hosts, ["shop.example.com", "*.shop.example.com"]);
    assert_eq!(service.path_prefix, "/shop");
    assert_eq!(service.request_timeout, Duration::from_mins(1));
    assert_eq!(service.env.clear["LISTEN"], "0.0.0.0:${PORT}");
    let token = SecretSource::Environment("TOKEN".to_owned());
    assert_eq!(service.env.secret, [("TOKEN".to_owned(), token)].into());
    let health = &service.health;
    assert_eq!(health.path, "/healthy");
    assert_eq!(health.host.as_deref(), Some("inside.example.com"));
    assert_eq!(health.interval, Duration::from_secs(3));
    assert_eq!(health.timeout, Duration::from_millis(1500));
    assert_eq!((health.successes, health.failures), (3, 5));
    assert_eq!(health.statuses, [(204, 204), (300, 399)]);
    let policy = &config.policy;
    assert_eq!(policy.hold_budget, Duration::from_millis(100));
    assert_eq!(policy.max_hold, Duration::from_secs(1));
    assert_eq!(policy.on_uncertain, OnUncertain::Shed);
    assert_eq!(policy.exclusive, Exclusive::Yes);
    assert_eq!(policy.watch, Duration::from_mins(2));
    assert_eq!(policy.keep_warm, Duration::from_hours(1));
    assert_eq!(policy.drain, Duration::from_secs(45));
    assert_eq!(policy.stop, Duration::from_secs(20));
    assert_eq!(policy.prepare, Duration::from_mins(10));
    let setup = &config.setup;
    assert_eq!(
        (setup.server.to_string().as_str(), setup.port),
        ("10.0.0.10", 9800)
    );
    let ssh = &setup.ssh;
    assert_eq!(
        (ssh.user.as_deref(), ssh.port),
        (Some("deploy"), Some(2222))
    );
    assert_eq!(ssh.identity.as_deref(), Some("~/.ssh/deploy"));
    assert_eq!(ssh.options, ["ProxyJump=bastion"]);
    assert_eq!(config.front, FrontKind::Nginx);
    assert_eq!(config.nginx.group.as_deref(), Some("www-data"));
    assert_eq!(config.nginx.forward_headers, ForwardHeaders::Yes);
    let second = config.instance(&InstanceId::from("second"));
    let nginx = config.nginx_of(second.expect("it is there"));
    let nginx = nginx.expect("plain paths");
    assert_eq!(nginx.include.to_string(), "/srv/second/greenlight.conf");
    assert_eq!(nginx.conf, Path::new("/srv/nginx.conf"));
    assert_eq!(nginx.pid, Path::new("/srv/nginx.pid"));
    assert_eq!(nginx.binary, Path::new("/opt/nginx"));
    assert_eq!(nginx.verify_port, 9000, "it is another machine");
    assert_eq!(ports(&config, "10.0.0.11"), (81, 7080, 7081));
    assert_eq!(ports(&config, "second"), (8000, 9080, 9081));
}

#[test]
fn what_is_left_out_has_the_default_of_the_design() {
    let config = parse("service: shop\ncommand: [shop]\nservers: [10.0.0.11, 10.0.0.12]\n")
        .expect("a good file");

    let policy = Policy {
        peer_checks: PeerChecks::Yes,
        ..Policy::default()
    };
    assert_eq!(config.policy, policy);
    assert_eq!(ports(&config, "10.0.0.12"), (80, 8080, 8081));
    assert_eq!(config.setup.server.to_string(), "10.0.0.11");
    assert_eq!(config.setup.port, 9700);
    let service = &config.services[&ServiceName::from("shop")];
    assert_eq!(
        service.health,
        greenlight_release::health::HealthCheck::default()
    );
    assert!(service.hosts.is_empty());
}

#[test]
fn peers_look_at_each_other_s_public_addresses_unless_told_not_to() {
    let text = "service: shop\ncommand: [a]\nservers: [10.0.0.11, \"[fd00::2]:8000\", b.example]\n";
    let fronts = |text: &str| {
        let addresses = parse(text).expect("a good file").addresses();
        let fronts = addresses.into_values().filter_map(|its| its.front);
        fronts.collect::<Vec<_>>()
    };
    assert_eq!(
        fronts(text),
        ["10.0.0.11:80", "b.example:80", "[fd00::2]:8000"]
    );
    let off = format!("{text}peer_checks: false\n");
    assert_eq!(fronts(&off), [""; 0]);
    let config = parse(&off).expect("a good file");
    assert_eq!(config.policy.peer_checks, PeerChecks::No);
}

#[test]
fn instances_of_one_machine_have_a_verifying_port_each() {
    let text = "service: shop\ncommand: [a]\nproxy: { front: nginx_reload }\nservers:\n\
                - { host: 127.0.0.1, port: 81, ports: { blue: 1, green: 2 } }\n\
                - { host: 127.0.0.2, ports: { blue: 3, green: 4 } }\n- 10.0.0.1\n";
    let config = parse(text).expect("a good file");
    let ports = config.instances.iter().map(|instance| {
        let nginx = config.nginx_of(instance).expect("plain paths");
        nginx.verify_port
    });
    assert_eq!(ports.collect::<Vec<_>>(), [9079, 9080, 9079]);
}

#[test]
fn several_services_have_ports_of_their_own() {
    let config = parse(
        "services:\n\
         \x20 shop: { command: [shop], proxy: { host: shop.example.com } }\n\
         \x20 blog: { command: [blog], proxy: { host: blog.example.com, ports: { blue: 8090, green: 8091 } } }\n\
         servers: [10.0.0.11]\n",
    )
    .expect("a good file");

    let instance = config.instance(&InstanceId::from("10.0.0.11"));
    let ports = &instance.expect("it is in the file").ports;
    let blog = PortPair {
        blue: 8090,
        green: 8091,
    };
    assert_eq!(
        ports[&ServiceName::from("blog")],
        RequestedPorts::Named(blog)
    );
    assert_eq!(ports.len(), 2);
}

#[test]
fn services_without_ports_prefer_some_that_nothing_else_in_the_file_uses() {
    let config = parse(
        "services:\n\
         \x20 a: { command: [a], proxy: { host: a.example.com } }\n\
         \x20 b: { command: [b], proxy: { host: b.example.com, ports: { blue: 8083, green: 8090 } } }\n\
         \x20 c: { command: [c], proxy: { host: c.example.com } }\n\
         servers:\n\
         \x20 - { name: one, host: 127.0.0.1, port: 8080 }\n\
         \x20 - { name: two, host: 127.0.0.1, port: 8000, ports: { b: { blue: 7000, green: 7001 } } }\n\
         \x20 - { name: far, host: 10.0.0.1 }\n",
    )
    .expect("a good file");

    let preferred = |instance: &str, service: &str| {
        let instance = config.instance(&InstanceId::from(instance));
        match instance.expect("it is in the file").ports[&ServiceName::from(service)] {
            RequestedPorts::Preferred(pair) => (pair.blue, pair.green),
            RequestedPorts::Named(pair) => panic!("{pair:?} are not in the file"),
        }
    };
    assert_eq!(preferred("one", "a"), (8084, 8085));
    assert_eq!(preferred("one", "c"), (8086, 8087));
    // The same machine once more, and another one.
    assert_eq!(preferred("two", "a"), (8088, 8089));
    assert_eq!(preferred("far", "a"), (8080, 8081));
}

#[test]
fn a_release_is_the_same_on_any_fleet() {
    let text = |servers: &str| format!("service: shop\ncommand: [shop]\nservers: {servers}\n");
    let digest = |servers: &str| {
        let specs = parse(&text(servers)).expect("a good file").specs("v1");
        specs[&ServiceName::from("shop")].to_release("v1").digest
    };
    let two = digest("[10.0.0.11, 10.0.0.12]");
    assert_eq!(
        two,
        digest("[{ host: 10.0.0.13, ports: { blue: 1, green: 2 } }]")
    );
}

#[test]
fn variables_of_the_environment_are_filled_in_and_those_of_the_application_are_not() {
    let config = parse(
        "service: ${NAME}\ncommand:\n  - ${MISSING:-shop}\n  - ${PORT}\n  - \"${VERSION}\"\nservers: [10.0.0.11]\n",
    )
    .expect("a good file");

    let service = &config.services[&ServiceName::from("shop")];
    let command = ["shop", "${PORT}", "${VERSION}"].map(ToOwned::to_owned);
    assert_eq!(service.artifact, Artifact::command(command.to_vec()));
}

#[test]
fn a_secret_that_is_not_set_is_named() {
    let config = parse(FULL).expect("a good file");
    let missing = config.secrets(Path::new("."), |name| {
        (name == "REGISTRY_PASSWORD").then(|| "hunter2".to_owned())
    });
    assert_eq!(missing.expect_err("it is not set").name, "TOKEN");
}

#[test]
fn the_schema_accepts_what_the_parser_does_and_names_every_key() {
    let schema = serde_json::to_value(crate::schema()).expect("a schema is plain data");
    let validator = jsonschema::draft7::new(&schema).expect("a good schema");
    let full: serde_json::Value = serde_saphyr::from_str(FULL).expect("good YAML");

    let diagnostics: Vec<_> = validator
        .iter_errors(&full)
        .map(|e| e.to_string())
        .collect();
    assert_eq!(diagnostics, [""; 0]);

    let mut misspelt = full;
    misspelt["stratgy"] = "blue_green".into();
    assert!(!validator.is_valid(&misspelt));
    misspelt.as_object_mut().expect("a map").remove("stratgy");
    misspelt["watch"] = "soon".into();
    assert!(!validator.is_valid(&misspelt));
}

/// Public, blue and green port of an instance.
fn ports(config: &Config, instance: &str) -> (u16, u16, u16) {
    let instance = config.instance(&InstanceId::from(instance));
    let instance = instance.expect("it is in the file");
    let pair = instance.ports[&ServiceName::from("shop")].pair();
    (instance.port, pair.blue, pair.green)
}

#[test]
fn what_ssh_would_take_for_another_option_is_refused() {
    for ssh in [
        "user: -oProxyCommand=evil",
        "options: [-v]",
        "identity: \"\"",
    ] {
        let text = format!(
            "service: shop\ncommand: [a]\nservers: [10.0.0.1]\nsetup: {{ ssh: {{ {ssh} }} }}\n"
        );
        let error = parse(&text).expect_err(ssh);
        assert!(
            super::report(&error).contains("not a value for `ssh`"),
            "{ssh}"
        );
    }
}

#[test]
fn a_group_that_is_none_does_not_get_into_a_unit() {
    let parsed = |group: &str| {
        parse(&format!(
            "service: shop\ncommand: [a]\nservers: [10.0.0.1]\n\
             proxy: {{ front: nginx, nginx: {{ group: {group:?} }} }}\n"
        ))
    };
    for group in ["www-data", "_nginx", "33"] {
        let config = parsed(group).expect(group);
        assert_eq!(config.nginx.group.as_deref(), Some(group));
    }
    for group in ["", "a b", "a\nEND OF UNIT", "-x", "3a", "%i", "$a", "Ä"] {
        let error = parsed(group).expect_err(group);
        assert!(super::report(&error).contains("not a group"), "{group:?}");
    }
}
