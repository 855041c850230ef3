//! The file as text: in the order in which people read it, with a comment where they must look.

use super::draft::{
    Draft, HealthDraft, LoggingDraft, Noted, RegistryDraft, SecretDraft, ServiceDraft,
};
use super::scalar::Scalar;
use super::unsupported::Unsupported;
use std::fmt::Write as _;

/// How wide comments are.
const WIDTH: usize = 98;

/// A key, the comment above it, and its value.
struct Entry {
    note: Option<String>,
    key: String,
    node: Node,
}

enum Node {
    Scalar(String),
    List(Vec<String>),
    Map(Vec<Entry>),
}

/// The text of `greenlight.yml`. `how` is the option that it was made with, `file` what it was made
/// from.
pub(super) fn write(draft: &Draft, how: &str, file: &str, unsupported: &[Unsupported]) -> String {
    let mut text = String::new();
    let mut head =
        format!("Made of `{file}` by `greenlight init {how}`. Read it before you deploy.");
    if !unsupported.is_empty() {
        head.push_str(" What could not be carried over is listed at the end.");
    }
    comment(&mut text, 0, "", &head);
    let mut after_block = true;
    for entry in entries(draft) {
        let is_block = matches!(entry.node, Node::Map(_) | Node::List(_)) || entry.note.is_some();
        if is_block || after_block {
            text.push('\n');
        }
        entry.write(&mut text, 0);
        after_block = is_block && !matches!(entry.node, Node::Scalar(_));
    }
    if !unsupported.is_empty() {
        text.push('\n');
        comment(&mut text, 0, "", "Not carried over:");
        for entry in unsupported {
            comment(
                &mut text,
                0,
                "- ",
                &format!("{}: {}", entry.what, entry.why),
            );
        }
    }
    text
}

fn entries(draft: &Draft) -> Vec<Entry> {
    let mut all = Vec::new();
    let mut top_proxy = Vec::new();
    if let Some(port) = draft.port {
        let note = "The public port of every instance.";
        top_proxy.push(number("port", port).noted(Some(note)));
    }
    match &draft.services[..] {
        [one] => {
            all.push(Entry::new("service", Node::Scalar(one.name.clone())));
            let (of_service, proxy) = service(one);
            all.extend(of_service);
            top_proxy.extend(proxy);
        }
        several => {
            let sections = several.iter().map(|one| {
                let (mut of_service, proxy) = service(one);
                of_service.push(Entry::new("proxy", Node::Map(proxy)));
                Entry::new(&one.name, Node::Map(of_service))
            });
            let note = "They are deployed together and cut over as one.";
            let node = Node::Map(sections.collect());
            all.push(Entry::new("services", node).noted(Some(note)));
        }
    }
    all.extend(draft.registry.as_ref().map(registry));
    all.push(servers(&draft.servers));
    if !top_proxy.is_empty() {
        all.push(Entry::new("proxy", Node::Map(top_proxy)));
    }
    all.push(
        Entry::new("strategy", Node::Scalar("blue_green".to_owned()))
            .noted(Some("All instances switch together, or none does.")),
    );
    for (key, value) in [
        ("drain_timeout", &draft.drain_timeout),
        ("stop_timeout", &draft.stop_timeout),
        ("deploy_timeout", &draft.deploy_timeout),
    ] {
        all.extend(value.as_ref().map(|value| scalar(key, value)));
    }
    all.extend(
        draft
            .retain_containers
            .map(|count| number("retain_containers", count)),
    );
    all
}

fn servers(servers: &[Scalar]) -> Entry {
    if servers.is_empty() {
        let note = "Every machine of the fleet; one for now. Each runs `greenlight agent` and \
                    `greenlight proxy`.";
        return Entry::new("servers", Node::List(vec!["127.0.0.1".to_owned()])).noted(Some(note));
    }
    let note = "Every machine of the fleet. Each runs `greenlight agent` and `greenlight proxy`.";
    list("servers", servers).noted(Some(note))
}

/// What a service has, and what its `proxy` has.
fn service(service: &ServiceDraft) -> (Vec<Entry>, Vec<Entry>) {
    let mut all = Vec::new();
    if let Some(image) = &service.image.value {
        all.push(scalar("image", image).noted(service.image.note.as_deref()));
    }
    all.extend(filled(list("cmd", &service.cmd)));
    all.extend(service.user.as_ref().map(|user| scalar("user", user)));
    all.extend(env(&service.clear, &service.secret));
    all.extend(filled(noted_list("volumes", &service.volumes)));
    all.extend(filled(Entry::new("labels", map(&service.labels))));
    all.extend(filled(noted_list("networks", &service.networks)));
    all.extend(
        service
            .memory
            .as_ref()
            .map(|memory| scalar("memory", memory)),
    );
    all.extend(service.cpus.as_ref().map(|cpus| scalar("cpus", cpus)));
    all.extend(
        service
            .restart
            .as_ref()
            .map(|restart| scalar("restart", restart)),
    );
    all.extend(service.logging.as_ref().map(logging));

    let mut proxy = Vec::new();
    let hosts = match &service.hosts.value[..] {
        [] => None,
        [host] => Some(scalar("host", host)),
        hosts => Some(list("hosts", hosts)),
    };
    proxy.extend(hosts.map(|hosts| hosts.noted(service.hosts.note.as_deref())));
    proxy.extend(
        service
            .path_prefix
            .as_ref()
            .map(|path| scalar("path_prefix", path)),
    );
    if let Some(port) = service.app_port.value {
        let note = service.app_port.note.as_deref();
        proxy.push(number("app_port", port).noted(note));
    }
    proxy.extend(filled(health(&service.health)));
    let timeout = service.request_timeout.as_ref();
    proxy.extend(timeout.map(|timeout| scalar("request_timeout", timeout)));
    (all, proxy)
}

fn env(clear: &[(Scalar, Scalar)], secret: &[SecretDraft]) -> Option<Entry> {
    let mut all = Vec::new();
    all.extend(filled(Entry::new("clear", map(clear))));
    let secrets = if secret.iter().all(|secret| secret.from.is_none()) {
        Node::List(
            secret
                .iter()
                .map(|secret| secret.name.to_string())
                .collect(),
        )
    } else {
        let pairs = secret.iter().map(|secret| {
            let from = secret.from.as_ref().unwrap_or(&secret.name);
            Entry::new(&secret.name.to_string(), Node::Scalar(format!("[{from}]")))
        });
        Node::Map(pairs.collect())
    };
    let note = "Taken from the environment of the deploy command.";
    all.extend(filled(Entry::new("secret", secrets)).map(|entry| entry.noted(Some(note))));
    filled(Entry::new("env", Node::Map(all)))
}

fn health(health: &HealthDraft) -> Entry {
    let mut all = Vec::new();
    let path = health.path.value.as_ref();
    let path = path.map_or_else(|| "/up".to_owned(), ToString::to_string);
    all.push(Entry::new("path", Node::Scalar(path)).noted(health.path.note.as_deref()));
    all.extend(
        health
            .interval
            .as_ref()
            .map(|time| scalar("interval", time)),
    );
    all.extend(health.timeout.as_ref().map(|time| scalar("timeout", time)));
    all.extend(health.failures.map(|count| number("failures", count)));
    Entry::new("healthcheck", Node::Map(all))
}

fn logging(logging: &LoggingDraft) -> Entry {
    let mut all = Vec::new();
    all.extend(
        logging
            .driver
            .as_ref()
            .map(|driver| scalar("driver", driver)),
    );
    all.extend(filled(Entry::new("options", map(&logging.options))));
    Entry::new("logging", Node::Map(all))
}

fn registry(registry: &RegistryDraft) -> Entry {
    let mut all = Vec::new();
    all.extend(
        registry
            .server
            .as_ref()
            .map(|server| scalar("server", server)),
    );
    all.push(scalar("username", &registry.username));
    let password = format!("[{}]", registry.password);
    let note = "The variable of the deploy command's environment that has it.";
    all.push(Entry::new("password", Node::Scalar(password)).noted(Some(note)));
    Entry::new("registry", Node::Map(all))
}

fn scalar(key: &str, value: &Scalar) -> Entry {
    Entry::new(key, Node::Scalar(value.to_string()))
}

fn number(key: &str, value: impl Into<u32>) -> Entry {
    Entry::new(key, Node::Scalar(value.into().to_string()))
}

fn list(key: &str, values: &[Scalar]) -> Entry {
    Entry::new(
        key,
        Node::List(values.iter().map(ToString::to_string).collect()),
    )
}

fn noted_list(key: &str, values: &Noted<Vec<Scalar>>) -> Entry {
    list(key, &values.value).noted(values.note.as_deref())
}

fn map(pairs: &[(Scalar, Scalar)]) -> Node {
    let pairs = pairs.iter();
    let entry = |(key, value): &(Scalar, Scalar)| scalar(&key.to_string(), value);
    Node::Map(pairs.map(entry).collect())
}

fn filled(entry: Entry) -> Option<Entry> {
    let empty = match &entry.node {
        Node::Scalar(_) => false,
        Node::List(items) => items.is_empty(),
        Node::Map(entries) => entries.is_empty(),
    };
    (!empty).then_some(entry)
}

impl Entry {
    fn new(key: &str, node: Node) -> Self {
        Self {
            note: None,
            key: key.to_owned(),
            node,
        }
    }

    fn noted(mut self, note: Option<&str>) -> Self {
        self.note = note.map(ToOwned::to_owned);
        self
    }

    fn write(&self, text: &mut String, depth: usize) {
        let indent = "  ".repeat(depth);
        if let Some(note) = &self.note {
            comment(text, depth, "", note);
        }
        let key = &self.key;
        match &self.node {
            Node::Scalar(value) => line(text, &format!("{indent}{key}: {value}")),
            Node::List(items) => {
                line(text, &format!("{indent}{key}:"));
                for item in items {
                    line(text, &format!("{indent}  - {item}"));
                }
            }
            Node::Map(entries) => {
                line(text, &format!("{indent}{key}:"));
                for entry in entries {
                    entry.write(text, depth + 1);
                }
            }
        }
    }
}

/// A comment, broken between words; lines after a bullet are indented.
fn comment(text: &mut String, depth: usize, bullet: &str, words: &str) {
    let indent = "  ".repeat(depth);
    let mut row = format!("{indent}# {bullet}");
    let hang = format!("{indent}# {}", " ".repeat(bullet.len()));
    let mut begun = false;
    for word in words.split_whitespace() {
        if begun && row.chars().count() + 1 + word.chars().count() > WIDTH {
            line(text, &row);
            row.clone_from(&hang);
            begun = false;
        }
        if begun {
            row.push(' ');
        }
        row.push_str(word);
        begun = true;
    }
    line(text, &row);
}

fn line(text: &mut String, add: &str) {
    writeln!(text, "{add}").expect("a string takes all");
}
