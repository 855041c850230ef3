//! From [`File`] to [`Config`]: defaults filled in, every value understood and checked.
//!
//! Diagnostics are collected, not returned one by one, so that a user sees all of them at once.
//! A faulty value is replaced by its default, so that later checks can continue.

mod container;
mod front;
mod instances;
mod ports;
mod services;
mod setup;

use super::Config;
use super::diagnostic::Diagnostic;
use super::file::{CutoverSection, File, OnUncertainWord, StrategyWord};
use super::interpolation::{self, Leftover};
use super::located::Located;
use greenlight_protocol::policy::{Exclusive, PeerChecks};
use greenlight_protocol::{OnUncertain, Policy, Strategy};
use greenlight_release::duration::{DurationText, parse_duration, written};
use greenlight_release::spec::Artifact;
use miette::SourceSpan;
use std::time::Duration;

/// What the file says, or everything that is wrong with it. `text` is the whole file.
pub(super) fn resolve(file: &File, text: &str) -> Result<Config, Vec<Diagnostic>> {
    let mut resolver = Resolver {
        text,
        diagnostics: Vec::new(),
    };
    resolver.strategy(file);
    let (front, nginx) = resolver.front(file);
    let mut policy = resolver.policy(file);
    let services = resolver.services(file);
    let artifacts = services.iter().map(|service| &service.config.artifact);
    if artifacts.into_iter().any(Artifact::has_before_switch) {
        policy.before_switch = Some(policy.prepare);
    }
    let registry = resolver.registry(file.fleet.registry.as_ref());
    let verify = Resolver::verify_port(file, front, &nginx);
    let instances = resolver.instances(file, &services, verify.as_ref());
    let setup = resolver.setup(file, &instances);
    if !resolver.diagnostics.is_empty() {
        return Err(resolver.diagnostics);
    }
    Ok(Config {
        services: services
            .into_iter()
            .map(|service| (service.name.value, service.config))
            .collect(),
        instances,
        front,
        nginx,
        strategy: Strategy::BlueGreen,
        policy,
        registry,
        setup,
    })
}

/// The whole text, and the errors found so far.
struct Resolver<'a> {
    text: &'a str,
    diagnostics: Vec<Diagnostic>,
}

impl Resolver<'_> {
    fn strategy(&mut self, file: &File) {
        let Some(strategy) = &file.fleet.strategy else {
            return;
        };
        let name = match strategy.value {
            StrategyWord::BlueGreen => return,
            StrategyWord::Rolling => "rolling",
            StrategyWord::Canary => "canary",
            StrategyWord::Recreate => "recreate",
        };
        self.diagnostics.push(Diagnostic::NotInThisVersion {
            feature: format!("the strategy `{name}`"),
            at: strategy.at,
            help: "write `strategy: blue_green`, or leave it out: the whole fleet then cuts over \
                   together"
                .to_owned(),
        });
    }

    fn policy(&mut self, file: &File) -> Policy {
        let fallback = Policy::default();
        let none = CutoverSection::default();
        let cutover = file
            .fleet
            .cutover
            .as_ref()
            .map_or(&none, |cutover| &cutover.value);
        let mut time = |key, text: &Option<_>, default| self.duration(key, text.as_ref(), default);
        let policy = Policy {
            hold_budget: time("hold_budget", &cutover.hold_budget, fallback.hold_budget),
            max_hold: time("max_hold", &cutover.max_hold, fallback.max_hold),
            on_uncertain: match &cutover.on_uncertain {
                None => fallback.on_uncertain,
                Some(word) => match word.value {
                    OnUncertainWord::ServeOld => OnUncertain::ServeOld,
                    OnUncertainWord::Shed => OnUncertain::Shed,
                },
            },
            exclusive: match cutover.exclusive.as_ref().is_some_and(|yes| yes.value) {
                true => Exclusive::Yes,
                false => Exclusive::No,
            },
            prepare: time(
                "deploy_timeout",
                &file.fleet.deploy_timeout,
                fallback.prepare,
            ),
            before_switch: fallback.before_switch,
            peer_checks: match file.fleet.peer_checks.as_ref().is_none_or(|yes| yes.value) {
                true => PeerChecks::Yes,
                false => PeerChecks::No,
            },
            watch: time("watch", &file.fleet.watch, fallback.watch),
            keep_warm: time("keep_warm", &file.fleet.keep_warm, fallback.keep_warm),
            drain: time("drain_timeout", &file.fleet.drain_timeout, fallback.drain),
            stop: time("stop_timeout", &file.fleet.stop_timeout, fallback.stop),
            rollback_attempts: fallback.rollback_attempts,
        };
        if policy.hold_budget >= policy.max_hold {
            let shown = |text: &Option<Located<DurationText>>, default: Duration| match text {
                Some(text) => text.value.0.clone(),
                None => format!("{default:?} unless set"),
            };
            self.diagnostics.push(Diagnostic::BudgetBeyondDeadline {
                budget: shown(&cutover.hold_budget, fallback.hold_budget),
                budget_at: cutover.hold_budget.as_ref().map(|text| text.at),
                deadline: shown(&cutover.max_hold, fallback.max_hold),
                deadline_at: cutover.max_hold.as_ref().map(|text| text.at),
            });
        }
        policy
    }

    /// A time that must be longer than nothing.
    fn duration(
        &mut self,
        key: &str,
        text: Option<&Located<DurationText>>,
        default: Duration,
    ) -> Duration {
        let Some(text) = text else {
            return default;
        };
        match parse_duration(&text.value.0) {
            Ok(Duration::ZERO) => {
                let help = format!("leave it out for the default, {}", written(default));
                let shown = self.as_written(text.at, &text.value.0);
                self.bad_value(key, text.at, shown, "a time must be longer than this", help);
                default
            }
            Ok(time) => time,
            Err(error) => {
                let shown = self.as_written(text.at, &text.value.0);
                self.diagnostics.push(Diagnostic::NotATime {
                    text: shown,
                    error,
                    at: text.at,
                });
                default
            }
        }
    }

    /// A port number. The type already excludes numbers above 65535.
    fn port(&mut self, key: &str, port: &Located<u16>) -> u16 {
        if port.value == 0 {
            let help = "write a number from 1 to 65535";
            self.bad_value(key, port.at, "0".to_owned(), "not a port", help.to_owned());
        }
        port.value
    }

    /// A text in which nothing is left to be replaced.
    fn plain(&mut self, value: &Located<String>) -> bool {
        self.replaced(value, Leftover::Nothing)
    }

    fn replaced(&mut self, value: &Located<String>, allowed: Leftover) -> bool {
        match interpolation::check(value, allowed, self.text) {
            Ok(()) => true,
            Err(diagnostic) => {
                self.diagnostics.push(diagnostic);
                false
            }
        }
    }

    fn bad_value(
        &mut self,
        key: &str,
        at: SourceSpan,
        value: String,
        reason: impl Into<String>,
        help: String,
    ) {
        self.diagnostics.push(Diagnostic::BadValue {
            key: key.to_owned(),
            value,
            at,
            reason: reason.into(),
            help,
        });
    }

    /// A value as a report may show it: what came from the environment may be secret, so the
    /// reference is shown in its place.
    fn as_written(&self, at: SourceSpan, value: &str) -> String {
        match self.text.get(at.offset()..at.offset() + at.len()) {
            Some(written) if written.contains("${") => written.to_owned(),
            Some(_) | None => value.to_owned(),
        }
    }
}
