//! The file that Nginx includes, as typed values; written as text, and read back from it.
//!
//! The file is the state: its second line has in JSON what the rest has in Nginx's syntax. So the
//! disk, Nginx's next start and our own view cannot disagree. A file whose
//! rest is not what its second line gives was edited by hand, and is not touched without asking.
//!
//! What the file says, and why:
//!
//! - `proxy_next_upstream error` with a single server never sends a request to another one. It
//!   only sends again, once, what met a kept connection that had died, and nothing with a body.
//! - Buffering is off in both directions, so that streams arrive as they are sent.
//! - Limits of size and silence are the application's and the gate's; Nginx's would be met first.

use greenlight_protocol::Color;
use greenlight_release::nginx::{ForwardHeaders, Label, NginxPath};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write as _;

const HEAD: &str =
    "# Written by greenlight. Do not edit: attaching and cut-overs write it again.\n";
/// The prefix of the line that has the state as JSON.
const STATE: &str = "# greenlight: ";
/// Connections to an upstream that each worker keeps.
const KEEPALIVE: u32 = 64;

/// The file that Nginx includes in its `http` block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Include {
    /// Counts the changes; the workers say which one they serve.
    pub generation: u64,
    /// The loopback port where they say it.
    pub verify_port: u16,
    /// Whether forwarding headers of the client are kept.
    pub forward_headers: ForwardHeaders,
    /// By service: where its requests go.
    pub upstreams: BTreeMap<Label, Upstream>,
}

/// Where a service's requests go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Upstream {
    /// To the gate, for good.
    Gate(NginxPath),
    /// Straight to one of two ports.
    Slots {
        /// The blue slot's port.
        blue: u16,
        /// The green slot's port.
        green: u16,
        /// Which one, at present.
        to: Target,
    },
}

/// Which slot gets the requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    Blue,
    Green,
    /// None: Nginx answers 503 itself.
    Parked,
}

/// Why a file is not an include that we wrote.
#[derive(Debug, thiserror::Error)]
pub enum IncludeError {
    /// It was not written by this program.
    #[error("it was not written by greenlight; move it away, or name another file as `include`")]
    Foreign,
    /// It was changed since.
    #[error("it was edited by hand; undo that, or remove it and run `greenlight attach nginx`")]
    Edited,
    /// Its second line cannot be read.
    #[error("its second line cannot be read ({0}); it may have been written by a newer greenlight")]
    State(#[from] serde_json::Error),
}

impl From<Color> for Target {
    fn from(color: Color) -> Self {
        match color {
            Color::Blue => Self::Blue,
            Color::Green => Self::Green,
        }
    }
}

impl Include {
    /// Reads a file back.
    pub fn read(text: &str) -> Result<Self, IncludeError> {
        let rest = text.strip_prefix(HEAD).ok_or(IncludeError::Foreign)?;
        let line = rest.lines().next().unwrap_or_default();
        let state = line.strip_prefix(STATE).ok_or(IncludeError::Foreign)?;
        let include: Self = serde_json::from_str(state)?;
        match include.render() == text {
            true => Ok(include),
            false => Err(IncludeError::Edited),
        }
    }

    /// The text of the file.
    pub fn render(&self) -> String {
        let state = serde_json::to_string(self).expect("plain data serialises");
        let mut text = format!("{HEAD}{STATE}{state}\n\n");
        text.push_str(MAPS);
        text.push_str(match self.forward_headers {
            ForwardHeaders::No => ASKER_HIMSELF,
            ForwardHeaders::Yes => ASKER_AS_TOLD,
        });
        for (service, upstream) in &self.upstreams {
            let server = match upstream {
                Upstream::Gate(socket) => format!("unix:{socket}"),
                Upstream::Slots { blue, green, to } => {
                    let port = match to {
                        Target::Blue => *blue,
                        Target::Green => *green,
                        Target::Parked => self.verify_port,
                    };
                    format!("127.0.0.1:{port}")
                }
            };
            write!(
                text,
                "\nupstream greenlight_{service} {{\n    server {server};\n    keepalive {KEEPALIVE};\n}}\n"
            )
            .expect("a string takes all");
        }
        self.render_verifying(&mut text);
        text
    }

    fn render_verifying(&self, text: &mut String) {
        let (port, marker) = (self.verify_port, self.marker());
        write!(
            text,
            "\nserver {{\n    listen 127.0.0.1:{port};\n    access_log off;\n    \
             location = /.greenlight/generation {{\n        default_type text/plain;\n        \
             return 200 \"{marker}\";\n    }}\n"
        )
        .expect("a string takes all");
        for (service, upstream) in &self.upstreams {
            if let Upstream::Gate(_) = upstream {
                write!(
                    text,
                    "    location = /.greenlight/gate/{service} {{\n        \
                     proxy_pass http://greenlight_{service}/.greenlight/gate;\n        \
                     proxy_http_version 1.1;\n        proxy_set_header Connection \"\";\n    }}\n"
                )
                .expect("a string takes all");
            }
        }
        text.push_str(
            "    location / {\n        add_header Retry-After 1 always;\n        return 503;\n    }\n}\n",
        );
    }

    /// What the workers answer that serve this.
    pub fn marker(&self) -> String {
        let mut marker = self.generation.to_string();
        for (service, upstream) in &self.upstreams {
            let to = match upstream {
                Upstream::Gate(_) => "gate",
                Upstream::Slots { to, .. } => match to {
                    Target::Blue => "blue",
                    Target::Green => "green",
                    Target::Parked => "parked",
                },
            };
            write!(marker, " {service}={to}").expect("a string takes all");
        }
        marker
    }

    /// The `location` of a service: a file of its own, which cut-overs do not change.
    pub fn render_location(&self, service: &Label) -> String {
        let claims = match self.forward_headers {
            ForwardHeaders::No => NO_CLAIMS,
            ForwardHeaders::Yes => "",
        };
        format!("{LOCATION_HEAD}proxy_pass http://greenlight_{service};\n{LOCATION}{claims}")
    }

    /// Whether a file is a location that we wrote.
    pub fn is_location(text: &str) -> bool {
        text.starts_with(LOCATION_HEAD)
    }
}

const MAPS: &str = "\
map $http_upgrade $greenlight_connection {
    default upgrade;
    '' '';
}
map $http_host $greenlight_host {
    default $http_host;
    '' $host;
}
";

const ASKER_HIMSELF: &str = "\
map $scheme $greenlight_proto {
    default $scheme;
}
map $remote_addr $greenlight_for {
    default $remote_addr;
}
";

const ASKER_AS_TOLD: &str = "\
map $http_x_forwarded_proto $greenlight_proto {
    default $http_x_forwarded_proto;
    '' $scheme;
}
map $proxy_add_x_forwarded_for $greenlight_for {
    default $proxy_add_x_forwarded_for;
}
";

const LOCATION_HEAD: &str =
    "# Written by greenlight, to be included in a `location` of your server. Do not edit.\n";

/// What else applications believe; without a load balancer it could only come from the client.
const NO_CLAIMS: &str = "\
proxy_set_header X-Forwarded-Port \"\";
proxy_set_header X-Forwarded-Prefix \"\";
proxy_set_header X-Forwarded-Scheme \"\";
proxy_set_header X-Forwarded-Server \"\";
proxy_set_header X-Forwarded-Ssl \"\";
";

const LOCATION: &str = "\
proxy_http_version 1.1;
proxy_set_header Host $greenlight_host;
proxy_set_header X-Forwarded-For $greenlight_for;
proxy_set_header X-Forwarded-Proto $greenlight_proto;
proxy_set_header X-Forwarded-Host $greenlight_host;
proxy_set_header X-Real-IP $remote_addr;
proxy_set_header Forwarded \"\";
proxy_set_header Upgrade $http_upgrade;
proxy_set_header Connection $greenlight_connection;
proxy_buffering off;
proxy_request_buffering off;
proxy_redirect off;
proxy_next_upstream error;
proxy_connect_timeout 5s;
proxy_send_timeout 1h;
proxy_read_timeout 1h;
client_max_body_size 0;
";

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn what_is_written_is_read_back() {
        let include = include();
        let read = Include::read(&include.render()).expect("it is ours");
        assert_eq!(read, include);
        assert_eq!(include.marker(), "7 cart=gate shop=green");
    }

    #[test]
    fn a_file_of_somebody_else_or_edited_by_hand_is_not_ours() {
        let text = include().render();
        let edited = text.replace("8081;", "9999;");
        assert!(matches!(
            Include::read("upstream a { server b; }"),
            Err(IncludeError::Foreign)
        ));
        assert!(matches!(Include::read(&edited), Err(IncludeError::Edited)));
    }

    #[test]
    fn hostile_text_in_the_line_of_state_is_refused_like_any_other() {
        let text = include().render();
        let hostile = text.replace("\"shop\":", "\"shop; } server {\":");
        assert!(matches!(
            Include::read(&hostile),
            Err(IncludeError::State(_))
        ));
    }

    #[test]
    fn a_parked_service_goes_to_the_server_that_answers_503() {
        let mut include = include();
        let shop = Label::new("shop").expect("a name");
        include.upstreams.insert(
            shop,
            Upstream::Slots {
                blue: 8080,
                green: 8081,
                to: Target::Parked,
            },
        );
        let text = include.render();
        assert!(text.contains("upstream greenlight_shop {\n    server 127.0.0.1:8079;"));
    }

    fn include() -> Include {
        let label = |text| Label::new(text).expect("a name");
        let socket = NginxPath::socket(Path::new("/run/gate.sock")).expect("a path");
        Include {
            generation: 7,
            verify_port: 8079,
            forward_headers: ForwardHeaders::No,
            upstreams: [
                (label("cart"), Upstream::Gate(socket)),
                (
                    label("shop"),
                    Upstream::Slots {
                        blue: 8080,
                        green: 8081,
                        to: Target::Green,
                    },
                ),
            ]
            .into(),
        }
    }
}
