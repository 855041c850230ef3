//! A registry in memory: just enough of the distribution API for one daemon to push to and pull
//! from, with a password.

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use bollard::Docker;
use bollard::auth::DockerCredentials;
use bollard::query_parameters::PushImageOptionsBuilder;
use futures_util::StreamExt as _;
use greenlight_release::digest::sha256_hex;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

pub(crate) struct Registry {
    address: SocketAddr,
    kept: Arc<Mutex<StoredRepository>>,
    login: (String, String),
}

#[derive(Default)]
struct StoredRepository {
    authorization: String,
    /// By digest, and manifests by tag as well.
    blobs: BTreeMap<String, (String, Bytes)>,
    uploads: BTreeMap<String, Vec<u8>>,
    by_digest: bool,
}

impl Registry {
    pub(crate) async fn start(username: &str, password: &str) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let address = listener.local_addr().expect("it listens");
        let kept = Arc::new(Mutex::new(StoredRepository {
            authorization: format!(
                "Basic {}",
                base64(format!("{username}:{password}").as_bytes())
            ),
            ..StoredRepository::default()
        }));
        let router = Router::new()
            .fallback(answer)
            .layer(axum::extract::DefaultBodyLimit::disable())
            .with_state(kept.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let login = (username.to_owned(), password.to_owned());
        Self {
            address,
            kept,
            login,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether a manifest was asked for by its digest.
    pub(crate) fn served_by_digest(&self) -> bool {
        self.kept.lock().expect("no handler panics").by_digest
    }

    pub(crate) async fn push(&self, docker: &Docker, image: &str) {
        let (name, tag) = image.rsplit_once(':').expect("it has a tag");
        // The client writes credentials in another alphabet than Docker reads; see the driver.
        let docker = docker.clone().with_request_modifier(|mut request| {
            if let Some(value) = request.headers().get("x-registry-auth") {
                let safe = value
                    .to_str()
                    .expect("base64")
                    .replace('+', "-")
                    .replace('/', "_");
                request
                    .headers_mut()
                    .insert("x-registry-auth", safe.parse().expect("base64"));
            }
            request
        });
        let credentials = DockerCredentials {
            username: Some(self.login.0.clone()),
            password: Some(self.login.1.clone()),
            ..DockerCredentials::default()
        };
        let options = PushImageOptionsBuilder::default().tag(tag).build();
        let mut pushing = std::pin::pin!(docker.push_image(name, Some(options), Some(credentials)));
        while let Some(step) = pushing.next().await {
            step.expect("it can be pushed");
        }
    }
}

async fn answer(
    State(kept): State<Arc<Mutex<StoredRepository>>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut kept = kept.lock().expect("no handler panics");
    let given = headers
        .get(header::AUTHORIZATION)
        .and_then(|given| given.to_str().ok());
    if given != Some(kept.authorization.as_str()) {
        let challenge = [(header::WWW_AUTHENTICATE, "Basic realm=\"test\"")];
        return (StatusCode::UNAUTHORIZED, challenge).into_response();
    }
    let path = uri.path().to_owned();
    let parts: Vec<_> = path.trim_matches('/').split('/').collect();
    match (method, &parts[..]) {
        (_, ["v2"]) => StatusCode::OK.into_response(),
        (Method::POST, ["v2", _, "blobs", "uploads"]) => {
            let id = format!("u{}", kept.uploads.len());
            kept.uploads.insert(id.clone(), Vec::new());
            let location = [(
                header::LOCATION,
                format!("{}/{id}", path.trim_end_matches('/')),
            )];
            (StatusCode::ACCEPTED, location).into_response()
        }
        (Method::PATCH, ["v2", _, "blobs", "uploads", id]) => {
            let upload = kept.uploads.entry((*id).to_owned()).or_default();
            upload.extend_from_slice(&body);
            let end = upload.len().saturating_sub(1);
            let headers = [
                (header::LOCATION, path.clone()),
                (header::RANGE, format!("0-{end}")),
            ];
            (StatusCode::ACCEPTED, headers).into_response()
        }
        (Method::PUT, ["v2", _, "blobs", "uploads", id]) => {
            let mut upload = kept.uploads.remove(*id).unwrap_or_default();
            upload.extend_from_slice(&body);
            let digest = format!("sha256:{}", sha256_hex(&upload));
            let kind = "application/octet-stream".to_owned();
            kept.blobs.insert(digest.clone(), (kind, upload.into()));
            (StatusCode::CREATED, [("docker-content-digest", digest)]).into_response()
        }
        (Method::PUT, ["v2", _, "manifests", tag]) => {
            let digest = format!("sha256:{}", sha256_hex(&body));
            let kind = headers
                .get(header::CONTENT_TYPE)
                .and_then(|kind| kind.to_str().ok());
            let kind = kind.unwrap_or_default().to_owned();
            kept.blobs
                .insert(digest.clone(), (kind.clone(), body.clone()));
            kept.blobs.insert((*tag).to_owned(), (kind, body));
            (StatusCode::CREATED, [("docker-content-digest", digest)]).into_response()
        }
        (
            method @ (Method::GET | Method::HEAD),
            ["v2", _, what @ ("blobs" | "manifests"), name],
        ) => {
            if *what == "manifests" && method == Method::GET && name.starts_with("sha256:") {
                kept.by_digest = true;
            }
            let Some((kind, bytes)) = kept.blobs.get(*name).cloned() else {
                return StatusCode::NOT_FOUND.into_response();
            };
            let headers = [
                (header::CONTENT_TYPE.as_str(), kind),
                (header::CONTENT_LENGTH.as_str(), bytes.len().to_string()),
                (
                    "docker-content-digest",
                    format!("sha256:{}", sha256_hex(&bytes)),
                ),
            ];
            match method {
                Method::HEAD => headers.into_response(),
                _ => (headers, bytes).into_response(),
            }
        }
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

/// As `Authorization: Basic` has it.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let number = three
            .iter()
            .fold(0_u32, |sum, byte| sum << 8 | u32::from(*byte));
        let number = number << (8 * (3 - three.len()));
        for place in 0..4 {
            let letter = usize::try_from(number >> (18 - 6 * place) & 63).expect("six bits");
            match place <= three.len() {
                true => text.push(char::from(LETTERS[letter])),
                false => text.push('='),
            }
        }
    }
    text
}
