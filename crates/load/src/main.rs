//! Many browsers at once, for `make load` and `make bench-peers`.
//!
//! It signs all agents in, one after the other, says so, and then makes calls as it is told on its standard input, one line for
//! each run: `RATE CONCURRENT TALK_MS SECONDS`. With rate 0 each of the `CONCURRENT` agents calls again as soon as its call is
//! over. Each run ends with one line of JSON. At the end of the input the agents are gone.

mod agent;
mod link;
mod peer;
mod run;
mod sip;

use std::io;
use std::process::ExitCode;

use clap::Parser;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::agent::Kind;
use crate::link::Target;
use crate::peer::Peer;
use crate::run::{Agents, Plan};

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL of the server.
    #[error("the URL must begin with ws:// or wss://, and name a host and a port")]
    Url,
    /// What the server is known by.
    #[error("wss:// needs --certificate, a PEM file with the certificate that the server shows")]
    Certificate,
    /// A run.
    #[error("a run is RATE CONCURRENT TALK_MS SECONDS, four numbers")]
    Plan,
    /// The server has ended the connection.
    #[error("the connection was closed")]
    Closed,
    /// It refused a request.
    #[error("refused with {0}")]
    Refused(u16),
    /// It said what should not come.
    #[error("an unexpected message")]
    Unexpected,
    /// Janus says why.
    #[error("Janus: {0}")]
    Janus(String),
    /// It said nothing for half a minute.
    #[error("no answer in time")]
    Late,
    /// The socket.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The WebSocket.
    #[error(transparent)]
    WebSocket(#[from] Box<tokio_tungstenite::tungstenite::Error>),
}

/// Load generator: signs agents in, then calls as each line of the standard input says (RATE CONCURRENT `TALK_MS` SECONDS).
#[derive(Parser)]
#[command(version, about)]
struct Options {
    /// What the agents speak
    #[arg(long, value_enum, default_value = "rtc")]
    kind: Kind,
    /// The server, <ws://host:port/> or <wss://host:port/>
    #[arg(long)]
    url: String,
    /// PEM file with the certificate that a wss server shows
    #[arg(long)]
    certificate: Option<String>,
    /// How many agents
    #[arg(long, default_value_t = 5000)]
    agents: u32,
    /// Name of the first one, a number; the others follow. The password of each is "pw" and its name
    #[arg(long, default_value_t = 100_000)]
    first: u32,
    /// File with the session description that each call offers
    #[arg(long)]
    offer: String,
    /// Be the called side as well, at this UDP address: tells the delay that the server adds
    #[arg(long)]
    peer: Option<String>,
    /// The called party: {n} stands for a number that is another in each call
    #[arg(long, default_value = "9{n}")]
    to: String,
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime
        .map_err(Error::from)
        .and_then(|runtime| runtime.block_on(load(Options::parse())))
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rtc-json-load: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn load(options: Options) -> Result<(), Error> {
    let offer = std::fs::read_to_string(&options.offer)?;
    let protocol = options.kind.protocol();
    let target = Target::new(&options.url, protocol, options.certificate.as_deref())?;
    let peer = match &options.peer {
        Some(address) => Some(Peer::start(address).await?),
        None => None,
    };
    let names = (options.first..).take(options.agents as usize);
    let mut agents =
        Agents::sign_in(options.kind, &target, names, &offer, options.to, peer).await?;
    println!("{}", json!({ "ready": options.agents }));
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let plan: Plan = line.parse()?;
        println!("{}", agents.run(&plan).await);
    }
    Ok(())
}
