//! The front, what it excludes, and the Nginx of every server.

use super::Resolver;
use crate::NginxConfig;
use crate::diagnostic::Diagnostic;
use crate::file::{File, NginxSection, OnUncertainWord};
use crate::located::Located;
use greenlight_release::front::FrontKind;
use greenlight_release::nginx::{ForwardHeaders, NginxPath};
use miette::SourceSpan;
use std::path::Path;

impl Resolver<'_> {
    pub(super) fn front(&mut self, file: &File) -> (FrontKind, NginxConfig) {
        let proxy = file.only_service.proxy.as_ref().map(|proxy| &proxy.value);
        let front = proxy.and_then(|proxy| proxy.front.as_ref());
        let section = proxy.and_then(|proxy| proxy.nginx.as_ref());
        let kind = front.map_or_else(FrontKind::default, |front| front.value);
        let nginx = section.map_or_else(NginxConfig::default, |s| self.nginx(&s.value));
        match (kind, front) {
            (FrontKind::Builtin, _) => {
                if let Some(section) = section {
                    self.diagnostics.push(Diagnostic::Misplaced {
                        key: "proxy.nginx".to_owned(),
                        at: section.at,
                        help: "the built-in proxy needs no Nginx; write `front: nginx`, or remove \
                               it"
                        .to_owned(),
                    });
                }
            }
            (FrontKind::NginxReload, Some(front)) => self.needs_no_gate(file, front.at),
            (FrontKind::Nginx | FrontKind::NginxReload, _) => {}
        }
        (kind, nginx)
    }

    /// The first instance's port for verifying, and where it comes from; none without Nginx.
    pub(super) fn verify_port(
        file: &File,
        kind: FrontKind,
        nginx: &NginxConfig,
    ) -> Option<Located<u16>> {
        let proxy = &file.only_service.proxy.as_ref()?.value;
        let section = proxy.nginx.as_ref();
        let written = section.and_then(|section| section.value.verify_port.as_ref());
        match kind {
            FrontKind::Builtin => None,
            FrontKind::Nginx | FrontKind::NginxReload => Some(Located {
                value: nginx.verify_port,
                at: written.map_or(proxy.front.as_ref()?.at, |port| port.at),
            }),
        }
    }

    /// A front without a gate must not be asked for what only a gate can do.
    fn needs_no_gate(&mut self, file: &File, front: SourceSpan) {
        let Some(cutover) = &file.fleet.cutover else {
            return;
        };
        let exclusive = cutover.value.exclusive.as_ref().filter(|yes| yes.value);
        let shed = cutover.value.on_uncertain.as_ref();
        let shed = shed.filter(|word| word.value == OnUncertainWord::Shed);
        let asked = [
            ("exclusive: true", exclusive.map(|key| key.at)),
            ("on_uncertain: shed", shed.map(|key| key.at)),
        ];
        for (key, at) in asked {
            if let Some(at) = at {
                self.diagnostics.push(Diagnostic::Conflict {
                    key: key.to_owned(),
                    at,
                    other: "front: nginx_reload".to_owned(),
                    other_at: front,
                    help: "only a gate can do that: write `front: nginx`, and Nginx keeps its \
                           port, its certificates and its logs"
                        .to_owned(),
                });
            }
        }
    }

    fn nginx(&mut self, section: &NginxSection) -> NginxConfig {
        let fallback = NginxConfig::default();
        NginxConfig {
            include: self.nginx_path("include", section.include.as_ref(), fallback.include),
            conf: self.nginx_path("conf", section.conf.as_ref(), fallback.conf),
            pid: self.nginx_path("pid", section.pid.as_ref(), fallback.pid),
            binary: self.nginx_path("binary", section.binary.as_ref(), fallback.binary),
            verify_port: match &section.verify_port {
                Some(port) => self.port("verify_port", port),
                None => fallback.verify_port,
            },
            forward_headers: match section
                .forward_headers
                .as_ref()
                .is_some_and(|yes| yes.value)
            {
                true => ForwardHeaders::Yes,
                false => ForwardHeaders::No,
            },
            group: section.group.as_ref().map(|group| self.group(group)),
        }
    }

    /// A group of the system. It gets into a unit and a script, so nothing else may.
    fn group(&mut self, group: &Located<String>) -> String {
        if self.plain(group) && !is_group(&group.value) {
            let shown = self.as_written(group.at, &group.value);
            let help = "write its name, of `a` to `z`, digits, `_` and `-`, or its number";
            self.bad_value("group", group.at, shown, "not a group", help.to_owned());
        }
        group.value.clone()
    }

    /// A path that may stand in a configuration of Nginx.
    fn nginx_path(&mut self, key: &str, path: Option<&Located<String>>, default: String) -> String {
        let Some(path) = path else {
            return default;
        };
        let named = path.value.replace(crate::nginx::INSTANCE, "i");
        if self.plain(path) && NginxPath::new(Path::new(&named)).is_err() {
            let shown = self.as_written(path.at, &path.value);
            let help =
                format!("write an absolute path of letters, digits, `.`, `_` and `-`: `{default}`");
            self.bad_value(key, path.at, shown, "not a path for Nginx", help);
        }
        path.value.clone()
    }
}

/// Whether this is what names a group, or a group's number.
fn is_group(text: &str) -> bool {
    let number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let starts = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
    let goes_on = |byte: u8| starts(byte) || byte.is_ascii_digit() || byte == b'-';
    let name = text.bytes().next().is_some_and(starts) && text.bytes().all(goes_on);
    number || name
}
