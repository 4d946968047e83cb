//! What the demo plays: recordings where there are any, otherwise a simulated venue.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::Result;
use tapeline_schemas::Kind;

use super::DemoArgs;
use crate::playback::simulated::{self, Simulated};
use crate::playback::{self, Handle, Recording};
use crate::venue::driver::VenueConfig;
use crate::venue::{Settings, VENUES};

enum Server {
    Recordings(Handle),
    Simulated(Simulated),
}

/// A tape being served.
pub(super) struct Tape {
    server: Server,
    venues: Vec<VenueConfig>,
}

const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

impl Tape {
    pub(super) async fn serve(args: &DemoArgs) -> Result<Tape> {
        let recordings = if args.simulated { Vec::new() } else { recorded(&args.recordings) };
        if recordings.is_empty() {
            return Tape::simulated(args).await;
        }
        let names: Vec<_> = recordings.iter().map(|(name, _)| *name).collect();
        let handle = playback::serve(&args.recordings, &names, ANY_PORT, args.speed).await?;
        let venues = recordings
            .into_iter()
            .map(|(name, settings)| {
                let (rest, ws) = (handle.rest_url(name), handle.ws_url(name));
                VenueConfig::playback(name, settings, rest, ws)
            })
            .collect::<Result<_, _>>()?;
        Ok(Tape { server: Server::Recordings(handle), venues })
    }

    async fn simulated(args: &DemoArgs) -> Result<Tape> {
        let config = simulated::Config::default();
        let simulated = simulated::serve(&config, ANY_PORT, args.speed).await?;
        let symbols =
            config.symbols.iter().map(|(base, quote)| format!("{base}-{quote}")).collect();
        let settings = Settings::new(symbols, vec![Kind::Trade, Kind::Ticker, Kind::Book]);
        let handle = &simulated.handle;
        let (rest, ws) = (handle.rest_url("binance"), handle.ws_url("binance"));
        let venue = VenueConfig::playback("BINANCE", settings, rest, ws)?;
        Ok(Tape { server: Server::Simulated(simulated), venues: vec![venue] })
    }

    pub(super) fn venues(&self) -> &[VenueConfig] {
        &self.venues
    }

    pub(super) fn description(&self) -> String {
        match &self.server {
            Server::Recordings(_) => {
                let names: Vec<_> = self.venues.iter().map(|venue| venue.venue.as_str()).collect();
                format!("recordings of {}", names.join(", "))
            }
            Server::Simulated(_) => "a simulated venue that speaks Binance's protocol".to_owned(),
        }
    }

    pub(super) async fn shutdown(self) {
        match self.server {
            Server::Recordings(handle) => handle.shutdown().await,
            Server::Simulated(simulated) => simulated.handle.shutdown().await,
        }
    }
}

/// Venues that are known and recorded, with the symbols and channels of their recording.
fn recorded(dir: &Path) -> Vec<(&'static str, Settings)> {
    VENUES
        .iter()
        .filter_map(|spec| {
            let recording = Recording::read(dir, spec.name).ok()?;
            Some((spec.name, recording.settings()))
        })
        .collect()
}
