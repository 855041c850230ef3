//! The commands of the admin socket: how each is read, and how it is answered.
//!
//! What a command does is the control's ([`greenlight_gate::GateControl`]); when it is answered,
//! it has been carried out here and in every follower that still has connections.

use super::answer::{Answer, Refusal, read, refused};
use super::server::Admin;
use crate::routing::check;
use greenlight_admin::{
    HoldAnswer, HoldRequest, OpenAnswer, OpenRequest, ServiceSettings, ServicesRequest,
};
use greenlight_gate::{Answer as Outcome, Command};
use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use std::rc::Rc;
use tracing::{Instrument as _, Span};

/// The longest name of a service.
const MAX_SERVICE_NAME: usize = 128;

impl Admin {
    pub(super) async fn hold(self: &Rc<Self>, request: Request<Incoming>) -> Answer<HoldAnswer> {
        let request: HoldRequest = read(request).await?;
        let span = span_of(request.epoch, &request.services);
        let done = self.obey(Command::Hold(request)).instrument(span.clone());
        match done.await? {
            Outcome::Held(held) => {
                span.in_scope(|| tracing::debug!(at_ns = held.held_at_ns, "held"));
                Ok(held)
            }
            other @ (Outcome::Opened(_) | Outcome::Counts(_) | Outcome::Done) => {
                unreachable!("a hold is answered with {other:?}")
            }
        }
    }

    pub(super) async fn open(self: &Rc<Self>, request: Request<Incoming>) -> Answer<OpenAnswer> {
        let request: OpenRequest = read(request).await?;
        let span = span_of(request.epoch, request.services.keys());
        match self.obey(Command::Open(request)).instrument(span).await? {
            Outcome::Opened(opened) => Ok(opened),
            other @ (Outcome::Held(_) | Outcome::Counts(_) | Outcome::Done) => {
                unreachable!("an opening is answered with {other:?}")
            }
        }
    }

    /// Lets requests wait until their service is opened.
    pub(super) async fn park(self: &Rc<Self>, request: Request<Incoming>) -> Answer<()> {
        let request: ServicesRequest = read(request).await?;
        let span = span_of(request.epoch, &request.services);
        let done = self.obey(Command::Park(request)).instrument(span);
        done.await.map(|_| ())
    }

    /// Refuses requests.
    pub(super) async fn shed(self: &Rc<Self>, request: Request<Incoming>) -> Answer<()> {
        let request: ServicesRequest = read(request).await?;
        let span = span_of(request.epoch, &request.services);
        let done = self.obey(Command::Shed(request)).instrument(span);
        done.await.map(|_| ())
    }

    pub(super) async fn define(
        self: &Rc<Self>,
        name: String,
        request: Request<Incoming>,
    ) -> Answer<()> {
        let settings: ServiceSettings = read(request).await?;
        if self.is_leader() {
            check_name(&name)?;
            check(&settings).map_err(|error| {
                let help = "correct the service's settings";
                Refusal(StatusCode::BAD_REQUEST, error.to_string(), help)
            })?;
        }
        let done = self.obey(Command::Define { name, settings });
        done.await.map(|_| ())
    }

    pub(super) async fn remove(self: &Rc<Self>, name: &str) -> Answer<()> {
        let name = name.to_owned();
        self.obey(Command::Remove { name }).await.map(|_| ())
    }

    /// Has a command carried out.
    pub(super) async fn obey(
        self: &Rc<Self>,
        command: Command<ServiceSettings>,
    ) -> Answer<Outcome> {
        let outcome = self.command(command).await;
        outcome.map_err(|refusal| refused(&refusal))
    }
}

fn check_name(name: &str) -> Answer<()> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if name.is_empty() || name.len() > MAX_SERVICE_NAME || !name.bytes().all(plain) {
        let error = format!("`{name}` cannot be a service's name");
        let help = "use letters, digits, `-`, `_` and `.`";
        return Err(Refusal(StatusCode::BAD_REQUEST, error, help));
    }
    Ok(())
}

/// What the lines of the log are about while a command is carried out.
fn span_of<N: AsRef<str>>(epoch: u64, services: impl IntoIterator<Item = N>) -> Span {
    let names = services.into_iter().fold(String::new(), |names, name| {
        let comma = if names.is_empty() { "" } else { "," };
        names + comma + name.as_ref()
    });
    tracing::info_span!("gate", epoch, service = names)
}
