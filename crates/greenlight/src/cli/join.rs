//! `greenlight token` and `greenlight join`: how a machine comes to have a certificate.

use super::args::{FileArg, FleetArg, duration};
use super::fleet::connect;
use super::{Exit, Failure, Output, print, print_json};
use greenlight_config::{Host, SERVER_PORT};
use greenlight_link::{
    Authority, Credentials, HttpsError, JoinError, JoinToken, PkiError, Role, TokenAnswer,
    TokenRequest, Tokens, UNKNOWN_HELP, check_validity, join as ask, noted_fleet, role_of,
};
use greenlight_protocol::InstanceId;
use greenlight_shell::clock::millis;
use serde::Serialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// `greenlight token`.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("who").required(true))]
pub struct TokenArgs {
    /// The configuration.
    #[command(flatten)]
    pub file: FileArg,
    #[command(flatten)]
    pub fleet: FleetArg,
    /// On the server's machine: the server's folder. The server need not be asked then.
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// The instance that may join.
    #[arg(long, value_name = "NAME", group = "who")]
    pub instance: Option<String>,
    /// Whoever joins becomes an operator, who may deploy.
    #[arg(long, group = "who")]
    pub operator: bool,
    /// How long it may be used, at most 24h.
    #[arg(long, value_name = "TIME", default_value = "15m", value_parser = validity)]
    pub valid: Duration,
}

/// `greenlight join`.
#[derive(Debug, clap::Args)]
pub struct JoinArgs {
    /// The server: its address or name, with its port unless that is 9700.
    #[arg(long, value_name = "ADDRESS", value_parser = server_address)]
    pub server: SocketAddr,
    /// What `greenlight token` printed; `-` reads it from standard input, which other users of
    /// this machine cannot see.
    #[arg(
        long,
        value_name = "TOKEN",
        env = "GREENLIGHT_TOKEN",
        hide_env_values = true
    )]
    pub token: String,
    /// The folder for key and certificate: the folder `identity` in an agent's `--state`, or an
    /// operator's `--fleet`.
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Joined<'a> {
    role: &'a str,
    dir: &'a PathBuf,
}

/// Makes a token.
pub(super) async fn token(args: &TokenArgs, output: Output) -> Result<Exit, Failure> {
    let instance = args.instance.clone().map(InstanceId);
    let token = if let Some(state) = &args.state {
        make_here(state, instance, args.valid)?
    } else {
        let valid_ms = millis(args.valid);
        let asked = TokenRequest { instance, valid_ms };
        let api = connect(&args.fleet, &args.file)?;
        let answer: TokenAnswer = api.post("/v1/tokens", &asked).await?;
        answer.token
    };
    match output {
        Output::Json => print_json(&TokenAnswer { token }),
        Output::Text => print(&format!("{token}\n")),
    }?;
    Ok(Exit::Done)
}

/// Makes a token in the server's own folder.
fn make_here(
    state: &Path,
    instance: Option<InstanceId>,
    valid: Duration,
) -> Result<String, Failure> {
    let authority = Authority::read(state).map_err(|error| no_authority(&error))?;
    if let (Some(name), Some(fleet)) = (&instance, noted_fleet(state))
        && !fleet.contains(name)
    {
        let error = format!("the server knows no instance `{name}`");
        return Err(Failure::new(Exit::Usage, error).help(UNKNOWN_HELP));
    }
    let role = instance.map_or(Role::Operator, |name| Role::Agent(name.0));
    let made = Tokens::of(state).make(&authority, &role, valid);
    let made = made.map_err(|error| Failure::new(Exit::Failed, error))?;
    Ok(made.to_string())
}

/// Joins a fleet.
pub(super) async fn join(args: &JoinArgs, output: Output) -> Result<Exit, Failure> {
    let text = match args.token.as_str() {
        "-" => std::io::read_to_string(std::io::stdin()).map_err(|error| {
            Failure::new(Exit::Usage, format!("no token could be read: {error}"))
        })?,
        text => text.to_owned(),
    };
    let token: JoinToken = text.parse().map_err(|reason| {
        Failure::new(Exit::Usage, format!("the token cannot be used: {reason}"))
            .help("`greenlight token` makes one, on the server or with an operator's credentials")
    })?;
    // A token is good once: it is not used up for a folder that cannot be written.
    std::fs::create_dir_all(&args.dir)
        .and_then(|()| tempfile::tempfile_in(&args.dir))
        .map_err(|error| {
            let error = format!("`{}` cannot be written: {error}", args.dir.display());
            Failure::new(Exit::Usage, error).help("name another folder with `--dir`")
        })?;
    let credentials = ask(args.server, &token).await.map_err(refused)?;
    let role = enter(&credentials, args)?;
    let (word, next) = match &role {
        Role::Agent(name) => (format!("instance `{name}`"), "start `greenlight agent`"),
        Role::Operator => (
            "operator".to_owned(),
            "give the folder to commands with `--fleet`, or as `GREENLIGHT_FLEET`",
        ),
        Role::Server => ("server".to_owned(), "start `greenlight server`"),
    };
    match output {
        Output::Json => print_json(&Joined {
            role: &role.dns_name(),
            dir: &args.dir,
        }),
        Output::Text => print(&format!(
            "joined as {word}; key and certificate are in `{}`\n{next}\n",
            args.dir.display()
        )),
    }?;
    Ok(Exit::Done)
}

/// Keeps what was given, with the server's address and its role beside it.
fn enter(credentials: &Credentials, args: &JoinArgs) -> Result<Role, Failure> {
    let role = role_of(&credentials.certificate);
    let role = role.map_err(|error| Failure::new(Exit::Failed, error))?;
    let kept = credentials.store(&args.dir);
    kept.map_err(|error| Failure::new(Exit::Failed, error))?;
    let beside = [
        ("server", args.server.to_string()),
        ("role", role.dns_name()),
    ];
    for (name, text) in beside {
        let path = args.dir.join(name);
        std::fs::write(&path, text).map_err(|error| {
            Failure::new(Exit::Failed, format!("`{}`: {error}", path.display()))
        })?;
    }
    Ok(role)
}

fn validity(text: &str) -> Result<Duration, String> {
    check_validity(duration(text)?).map_err(|error| error.to_string())
}

/// Where a server is, as `setup.server` has it.
fn server_address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let (host, port) = Host::parse_with_port(text).map_err(|error| {
        format!("{error}; write an address and a port, such as `10.0.0.10:{SERVER_PORT}`")
    })?;
    let address = host.resolve().map_err(|error| error.to_string())?;
    Ok(SocketAddr::new(address, port.unwrap_or(SERVER_PORT)))
}

fn no_authority(error: &PkiError) -> Failure {
    Failure::new(Exit::Usage, error)
        .help("`--state` is the folder of `greenlight server`, which has been started there once")
}

fn refused(error: JoinError) -> Failure {
    match error {
        JoinError::Refused { error, help } => Failure::new(Exit::Failed, error).help(help),
        JoinError::Unreachable(error @ HttpsError::Refused(_)) => {
            let error = format!("the server cannot be reached: {error}");
            Failure::new(Exit::Failed, error).help(
                "nothing was used up; is the server running? `systemctl status greenlight-server` \
                 on its machine shows that",
            )
        }
        JoinError::Unreachable(error) => Failure::new(Exit::Failed, error)
            .help("check `--server`, and that the token is of that server; it may be used up now"),
        error @ (JoinError::Pki(_) | JoinError::Unreadable(_)) => Failure::new(Exit::Failed, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_found_by_address_or_name_at_its_port_or_the_usual_one() {
        for (text, address) in [
            ("10.0.0.10", "10.0.0.10:9700"),
            ("10.0.0.10:9800", "10.0.0.10:9800"),
            ("[::1]:9800", "[::1]:9800"),
        ] {
            let address = address.parse().expect("an address");
            assert_eq!(server_address(text), Ok(address), "{text}");
        }
        let found = server_address("localhost:9800").expect("it is known");
        assert!(found.ip().is_loopback(), "{found}");
        let refused = server_address("https://10.0.0.10").expect_err("it has a scheme");
        assert!(refused.contains("such as `10.0.0.10:9700`"), "{refused}");
    }
}
