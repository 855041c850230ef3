//! The role that a certificate gives, and what each role may do.
//!
//! | Role | May |
//! |---|---|
//! | operator | use the operators' API, and admit machines |
//! | agent | read the directives of its own instance, report for it, and ask its peers |
//! | server | be the server: agents and operators send what they have to say to no one else |
//!
//! Every role may renew its own certificate. Who shows no certificate may join with a token.

use crate::api::ErrorAnswer;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use axum::{Json, Router};
use greenlight_protocol::InstanceId;
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

/// The name that agents expect of the server, wherever it listens.
pub(crate) const SERVER_NAME: &str = "server.greenlight.internal";
const OPERATOR_NAME: &str = "operator.greenlight.internal";
const AGENT_SUFFIX: &str = ".agent.greenlight.internal";

/// The role that a certificate gives.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// The coordinator's process.
    Server,
    /// The agent of this instance.
    Agent(String),
    /// A person, or a job that acts for one.
    Operator,
}

impl Role {
    /// The role's name in certificates.
    pub fn dns_name(&self) -> String {
        match self {
            Self::Server => SERVER_NAME.to_owned(),
            Self::Operator => OPERATOR_NAME.to_owned(),
            Self::Agent(name) => format!("{name}{AGENT_SUFFIX}"),
        }
    }

    /// The role that a verified certificate gives.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let names = parsed.subject_alternative_name().ok()??;
        names.value.general_names.iter().find_map(|name| {
            let GeneralName::DNSName(name) = name else {
                return None;
            };
            Self::of_name(name)
        })
    }

    /// The role that a name of [`Role::dns_name`] stands for.
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        match name {
            SERVER_NAME => Some(Self::Server),
            OPERATOR_NAME => Some(Self::Operator),
            name => Some(Self::Agent(name.strip_suffix(AGENT_SUFFIX)?.to_owned())),
        }
    }

    /// Whether this is the agent of `instance`: only it may read its directives and report for it.
    pub(crate) fn is_agent_of(&self, instance: &str) -> bool {
        matches!(self, Self::Agent(name) if name == instance)
    }

    /// The instance whose agent this is: peers answer agents only.
    pub(crate) fn into_agent(self) -> Option<InstanceId> {
        match self {
            Self::Agent(name) => Some(InstanceId(name)),
            Self::Server | Self::Operator => None,
        }
    }

    /// Whether this role may use the operators' API: deploy, promote, abort, roll back, read.
    pub fn may_operate(&self) -> bool {
        matches!(self, Self::Operator)
    }
}

/// Admits only callers whose role `permitted` accepts.
pub fn allow(router: Router, permitted: fn(&Role) -> bool) -> Router {
    router.layer(from_fn(move |request: Request, next: Next| async move {
        match request.extensions().get::<Role>() {
            Some(role) if permitted(role) => next.run(request).await,
            Some(_) | None => forbidden(),
        }
    }))
}

fn forbidden() -> Response {
    let answer = ErrorAnswer {
        error: "this certificate's role may not do that".to_owned(),
        help: "operators use the credentials that `greenlight up`, `setup` or `join` wrote"
            .to_owned(),
    };
    (StatusCode::FORBIDDEN, Json(answer)).into_response()
}
