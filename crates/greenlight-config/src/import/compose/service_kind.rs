//! What kind of service one is, by its image, its ports and its labels.

use crate::import::section::{Section, text_of};
use serde_json::Value;

/// Beginnings of the names of images that keep data, queue, or look at others.
const BACKENDS: &[&str] = &[
    "postg",
    "pgvector",
    "pgadmin",
    "pgbouncer",
    "timescale",
    "mysql",
    "mariadb",
    "percona",
    "phpmyadmin",
    "adminer",
    "mongo",
    "redis",
    "valkey",
    "keydb",
    "dragonfly",
    "memcached",
    "rabbitmq",
    "kafka",
    "cp-kafka",
    "cp-zookeeper",
    "zookeeper",
    "nats",
    "mosquitto",
    "elasticsearch",
    "opensearch",
    "kibana",
    "logstash",
    "meilisearch",
    "typesense",
    "solr",
    "clickhouse",
    "influxdb",
    "cassandra",
    "scylla",
    "neo4j",
    "cockroach",
    "minio",
    "localstack",
    "etcd",
    "consul",
    "vault",
    "prometheus",
    "grafana",
    "loki",
    "promtail",
    "jaeger",
    "cadvisor",
    "node-exporter",
    "mailhog",
    "mailpit",
    "maildev",
    "watchtower",
    "portainer",
    "selenium",
    "chrome",
];
/// The same of those that pass requests on.
const PROXIES: &[&str] = &[
    "traefik",
    "nginx",
    "caddy",
    "haproxy",
    "envoy",
    "swag",
    "acme",
    "letsencrypt",
    "certbot",
    "cloudflared",
];

/// What kind of service one is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It serves requests from outside.
    Web,
    /// It needs no requests from outside.
    Worker,
    /// A database, a queue, a tool; with its image's name.
    Backend(String),
    /// A proxy before the others, with its image's name.
    Proxy(String),
}

impl Kind {
    pub(super) fn of(service: &Section) -> Self {
        let mut service = service.clone();
        let builds = service.has("build");
        let image = service.take("image").and_then(|image| text_of(&image));
        if let (Some(image), false) = (&image, builds) {
            let name = short_name(image);
            let is = |known: &[&str]| known.iter().any(|begin| name.starts_with(begin));
            if is(BACKENDS) {
                return Self::Backend(format!("`{name}`"));
            }
            if is(PROXIES) {
                return Self::Proxy(format!("`{name}`"));
            }
        }
        let publishes = service.take("ports").is_some();
        let mut labels = Vec::new();
        for (_, value) in [
            ("labels", service.take("labels")),
            ("deploy", service.take("deploy")),
        ] {
            labels.extend(value.iter().map(Value::to_string));
        }
        let routed = labels
            .iter()
            .any(|label| label.contains("traefik.http.routers") || label.contains("\"caddy"));
        let environment = service.take("environment").map(|value| value.to_string());
        let virtual_host = environment.is_some_and(|all| all.contains("VIRTUAL_HOST"));
        match publishes || routed || virtual_host {
            true => Self::Web,
            false => Self::Worker,
        }
    }
}

/// The last part of an image's name, without registry, tag and digest.
fn short_name(image: &str) -> &str {
    let name = image.split('@').next().unwrap_or(image);
    let last = name.rsplit('/').next().unwrap_or(name);
    last.split(':').next().unwrap_or(last)
}
