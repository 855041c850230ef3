//! What a file means that names an image.

use super::parse;
use crate::secret_source::SecretSource;
use greenlight_release::spec::image::{Cpus, LogOptions, Memory, Restart};
use greenlight_release::spec::{Artifact, ImageSpec};

/// Every key that there is for containers, each with a value that is not its default.
const FULL: &str = r#"
service: shop
image: ghcr.io/acme/shop
cmd: ["bin/server", "--port", "${PORT}"]
user: "1000:1000"
volumes: ["/srv/data:/data:ro", "uploads:/app/uploads"]
labels: { team: shop }
networks: [backend]
memory: 512m
cpus: 0.5
logging: { driver: json-file, options: { max-size: 10m } }
restart: on-failure:3
before_switch: ["bin/migrate"]
retain_containers: 3
proxy: { app_port: 3000 }
registry: { server: ghcr.io, username: ci, password: [REGISTRY_PASSWORD] }
env:
  clear: { LOG: info }
  secret:
    API_KEY:
    DATABASE_URL: { file: /run/secrets/db }
    TOKEN: { command: [pass, show, token] }
servers: [10.0.0.11]
"#;

#[test]
fn an_image_comes_with_everything_that_is_said_about_its_container() {
    let config = parse(FULL).expect("it has no diagnostics");

    let shop = &config.services[&"shop".into()];
    let strings = |words: &[&str]| {
        words
            .iter()
            .map(|word| (*word).to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        shop.artifact,
        Artifact::Image(Box::new(ImageSpec {
            image: "ghcr.io/acme/shop".to_owned(),
            pinned: None,
            cmd: Some(strings(&["bin/server", "--port", "${PORT}"])),
            app_port: 3000,
            user: Some("1000:1000".to_owned()),
            volumes: strings(&["/srv/data:/data:ro", "uploads:/app/uploads"]),
            labels: [("team".to_owned(), "shop".to_owned())].into(),
            networks: strings(&["backend"]),
            memory: Some(Memory(512 * 1024 * 1024)),
            cpus: Some(Cpus(500_000_000)),
            logging: Some(LogOptions {
                driver: Some("json-file".to_owned()),
                options: [("max-size".to_owned(), "10m".to_owned())].into(),
            }),
            restart: Restart::OnFailure(Some(3)),
            before_switch: Some(strings(&["bin/migrate"])),
            retain: 3,
        }))
    );
    let secret = &shop.env.secret;
    assert_eq!(
        secret["API_KEY"],
        SecretSource::Environment("API_KEY".to_owned())
    );
    assert_eq!(
        secret["DATABASE_URL"],
        SecretSource::File("/run/secrets/db".into())
    );
    assert_eq!(
        secret["TOKEN"],
        SecretSource::Command(strings(&["pass", "show", "token"]))
    );
    let registry = config.registry.as_ref().expect("it is there");
    assert_eq!(
        registry.password,
        SecretSource::Environment("REGISTRY_PASSWORD".to_owned())
    );
}

#[test]
fn an_image_without_a_tag_means_the_one_that_is_tagged_with_the_version() {
    let image_of = |image: &str| {
        let config = parse(&format!(
            "service: shop\nimage: {image}\nservers: [10.0.0.11]\n"
        ));
        let specs = config.expect("it has no diagnostics").specs("1.4");
        match &specs[&"shop".into()].artifact {
            Artifact::Image(image) => image.image.clone(),
            Artifact::Command { .. } => panic!("it is an image"),
        }
    };

    assert_eq!(image_of("localhost:5000/shop"), "localhost:5000/shop:1.4");
    assert_eq!(image_of("ghcr.io/acme/shop:2"), "ghcr.io/acme/shop:2");
}

#[test]
fn several_services_have_a_container_each() {
    let config = parse(
        r#"
services:
  shop: { image: "acme/shop:1", proxy: { host: shop.example.com } }
  blog:
    image: "acme/blog:1"
    memory: 64m
    proxy: { host: blog.example.com, ports: { blue: 8090, green: 8091 } }
servers: [10.0.0.11]
"#,
    )
    .expect("it has no diagnostics");

    let memory = |service: &str| match &config.services[&service.into()].artifact {
        Artifact::Image(image) => image.memory,
        Artifact::Command { .. } => panic!("it is an image"),
    };
    assert_eq!(memory("shop"), None);
    assert_eq!(memory("blog"), Some(Memory(64 * 1024 * 1024)));
}

#[test]
fn the_schema_accepts_what_the_parser_does_about_containers() {
    let schema = serde_json::to_value(crate::schema()).expect("a schema is plain data");
    let validator = jsonschema::draft7::new(&schema).expect("a good schema");
    let full: serde_json::Value = serde_saphyr::from_str(FULL).expect("good YAML");

    let diagnostics = validator.iter_errors(&full).map(|error| error.to_string());

    assert_eq!(diagnostics.collect::<Vec<_>>(), [""; 0]);
}
