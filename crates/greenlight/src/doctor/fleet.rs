//! What only the whole fleet shows: who is away, what differs between machines, whose clock is
//! off.

use super::clock::ClockExchange;
use greenlight_link::doctor::{Finding, FleetReport, InstanceReport, MachineReport};
use greenlight_protocol::InstanceId;
use std::collections::{BTreeMap, BTreeSet};

/// All findings of a fleet. `asked_ms` and `heard_ms` are this machine's clock around the answer;
/// `file` are the instances of the file, if there is one.
pub fn across(
    seen: &FleetReport,
    (asked_ms, heard_ms): (u64, u64),
    file: Option<&BTreeSet<InstanceId>>,
) -> Vec<Finding> {
    let facts = Facts {
        seen,
        asked_ms,
        heard_ms,
        file,
    };
    CHECKS.iter().flat_map(|check| check(&facts)).collect()
}

/// What the checks judge.
struct Facts<'a> {
    seen: &'a FleetReport,
    asked_ms: u64,
    heard_ms: u64,
    file: Option<&'a BTreeSet<InstanceId>>,
}

/// The checks, in the order of their findings.
const CHECKS: [fn(&Facts<'_>) -> Vec<Finding>; 6] = [
    own_clock,
    instances,
    greenlight_versions,
    docker_versions,
    architectures,
    membership,
];

impl Facts<'_> {
    /// What was found on the machines that answered.
    fn reports(&self) -> impl Iterator<Item = (&InstanceId, &MachineReport)> {
        let instances = self.seen.instances.iter();
        instances.filter_map(|(name, instance)| match instance {
            InstanceReport::Answered { report, .. } => Some((name, report.as_ref())),
            InstanceReport::Away | InstanceReport::Silent => None,
        })
    }
}

/// Whether this machine's clock is right.
fn own_clock(facts: &Facts<'_>) -> Vec<Finding> {
    let exchange = ClockExchange {
        asked: facts.asked_ms,
        received: facts.seen.received_ms,
        answered: facts.seen.answered_ms,
        heard: facts.heard_ms,
    };
    let mut finding = exchange.finding();
    "clock offset of this machine".clone_into(&mut finding.check);
    vec![finding]
}

/// Who is there, whose clock is off, and what each machine found itself.
fn instances(facts: &Facts<'_>) -> Vec<Finding> {
    let instances = facts.seen.instances.iter();
    let findings = instances.flat_map(|(name, instance)| {
        findings_of(instance).into_iter().map(|mut finding| {
            finding.instance = Some(name.clone());
            finding
        })
    });
    findings.collect()
}

fn findings_of(instance: &InstanceReport) -> Vec<Finding> {
    const CHECK: &str = "agent";
    match instance {
        InstanceReport::Away => {
            let todo = "start `greenlight agent` there, or look at its log; nothing can be \
                        deployed without it";
            vec![Finding::problem(CHECK, "not connected", todo)]
        }
        InstanceReport::Silent => {
            let found = "connected, but it does not answer";
            let todo = "use the same version of greenlight everywhere, or look at its log";
            vec![Finding::problem(CHECK, found, todo)]
        }
        InstanceReport::Answered {
            asked_ms,
            heard_ms,
            report,
        } => {
            let exchange = ClockExchange {
                asked: *asked_ms,
                received: report.received_ms,
                answered: report.answered_ms,
                heard: *heard_ms,
            };
            let connected = Finding::ok(CHECK, format!("{} is connected", report.version));
            let mut findings = vec![connected, exchange.finding()];
            findings.extend(report.findings.iter().cloned());
            findings
        }
    }
}

/// Whether all parts are of one version of greenlight.
fn greenlight_versions(facts: &Facts<'_>) -> Vec<Finding> {
    let mut versions = BTreeMap::new();
    let here = env!("CARGO_PKG_VERSION");
    note(&mut versions, here, "this command".to_owned());
    note(&mut versions, &facts.seen.version, "the server".to_owned());
    for (name, report) in facts.reports() {
        note(&mut versions, &report.version, format!("agent `{name}`"));
        if let Some(proxy) = &report.proxy {
            note(&mut versions, proxy, format!("proxy `{name}`"));
        }
    }
    let todo = "bring all to one version; `greenlight proxy --take-over` upgrades under traffic";
    same("greenlight versions", &versions, todo)
}

/// Whether all machines have one version of docker.
fn docker_versions(facts: &Facts<'_>) -> Vec<Finding> {
    let mut versions = BTreeMap::new();
    for (name, report) in facts.reports() {
        if let Some(docker) = &report.docker {
            note(&mut versions, docker, format!("`{name}`"));
        }
    }
    same("docker versions", &versions, "bring all to one version")
}

/// Whether one image fits all machines.
fn architectures(facts: &Facts<'_>) -> Vec<Finding> {
    let mut architectures = BTreeMap::new();
    for (name, report) in facts.reports() {
        note(
            &mut architectures,
            &report.architecture,
            format!("`{name}`"),
        );
    }
    let todo = "build the image for each of them, or use machines of one kind";
    same("architectures", &architectures, todo)
}

fn note(seen: &mut BTreeMap<String, Vec<String>>, value: &str, of: String) {
    seen.entry(value.to_owned()).or_default().push(of);
}

/// Whether all have one value.
fn same(check: &str, seen: &BTreeMap<String, Vec<String>>, todo: &str) -> Vec<Finding> {
    let each = seen.iter().map(|(value, of)| {
        let value = match value.as_str() {
            "" => "an older one",
            value => value,
        };
        format!("{value}: {}", of.join(", "))
    });
    match seen.len() {
        0 => Vec::new(),
        1 => vec![Finding::ok(check, each.collect::<String>())],
        _ => {
            let found = each.collect::<Vec<_>>().join("; ");
            vec![Finding::note(check, found, todo)]
        }
    }
}

/// Whether the file and the server mean the same instances.
fn membership(facts: &Facts<'_>) -> Vec<Finding> {
    const CHECK: &str = "instances";
    let Some(file) = facts.file else {
        return Vec::new();
    };
    let server: BTreeSet<_> = facts.seen.instances.keys().cloned().collect();
    let unknown = file.difference(&server).map(|name| {
        Finding::problem(
            CHECK,
            format!("`{name}` is in `servers`, and the server does not know it"),
            "add it to the fleet and start its agent, or take it out of the file",
        )
    });
    let more = server.difference(file).map(|name| {
        Finding::problem(
            CHECK,
            format!("the server knows `{name}`, which is not in `servers`"),
            "add it to the file: a release has no ports for it otherwise",
        )
    });
    let mut findings: Vec<_> = unknown.chain(more).collect();
    if findings.is_empty() {
        let found = format!(
            "the {} of the file are the same as the server's",
            file.len()
        );
        findings.push(Finding::ok(CHECK, found));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use greenlight_link::doctor::Level;

    #[test]
    fn what_differs_and_who_is_away_is_said() {
        let seen = FleetReport {
            version: "0.0.1".to_owned(),
            received_ms: 10,
            answered_ms: 20,
            instances: [
                (id("a"), answered("amd64")),
                (id("b"), answered("arm64")),
                (id("c"), InstanceReport::Away),
            ]
            .into(),
        };

        let findings = across(&seen, (5, 25), Some(&[id("a"), id("b"), id("d")].into()));

        let of = |check: &str| {
            let found = findings.iter().filter(move |f| f.check == check);
            found.collect::<Vec<_>>()
        };
        assert_eq!(of("greenlight versions")[0].level, Level::Note);
        assert!(of("greenlight versions")[0].found.contains("the server"));
        assert_eq!(of("architectures")[0].level, Level::Note);
        assert_eq!(of("docker versions"), Vec::<&Finding>::new());
        let away: Vec<_> = of("agent")
            .into_iter()
            .filter(|f| f.level == Level::Problem)
            .collect();
        assert_eq!(away.len(), 1);
        assert_eq!(away[0].instance, Some(id("c")));
        let wrong = of("instances");
        assert_eq!(wrong.len(), 2);
        assert!(wrong[0].found.contains("`d`") && wrong[1].found.contains("`c`"));
        assert_eq!(of("clock offset of this machine")[0].level, Level::Ok);
    }

    fn id(name: &str) -> InstanceId {
        InstanceId(name.to_owned())
    }

    fn answered(architecture: &str) -> InstanceReport {
        InstanceReport::Answered {
            asked_ms: 10,
            heard_ms: 10,
            report: Box::new(MachineReport {
                version: "0.0.1".to_owned(),
                proxy: None,
                docker: None,
                architecture: architecture.to_owned(),
                received_ms: 10,
                answered_ms: 10,
                findings: Vec::new(),
            }),
        }
    }
}
