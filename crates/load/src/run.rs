//! The agents of a run, and what came of their calls.

use std::collections::{BTreeMap, VecDeque};
use std::str::FromStr;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::{json, Value};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::agent::{Agent, Kind, Times};
use crate::link::{Target, Traffic};
use crate::peer::Peer;
use crate::Error;

/// A call for which nothing comes for so long, beside the talk, has failed.
const PATIENCE: Duration = Duration::from_secs(30);
/// What is shown of a distribution.
const QUANTILES: [(&str, f64); 7] = [
    ("p50", 0.5),
    ("p90", 0.9),
    ("p95", 0.95),
    ("p99", 0.99),
    ("p999", 0.999),
    ("p9999", 0.9999),
    ("max", 1.0),
];

/// One run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Calls a second; 0: as many as the server can.
    rate: u32,
    /// Calls at a time, at most.
    concurrent: usize,
    /// How long each lasts.
    talk: Duration,
    /// For how long new ones begin.
    time: Duration,
}

impl FromStr for Plan {
    type Err = Error;

    fn from_str(line: &str) -> Result<Self, Error> {
        let numbers: Result<Vec<u32>, _> = line.split_whitespace().map(str::parse).collect();
        match numbers.as_deref() {
            Ok(&[rate, concurrent, talk, seconds]) if concurrent > 0 => Ok(Self {
                rate,
                concurrent: concurrent as usize,
                talk: Duration::from_millis(talk.into()),
                time: Duration::from_secs(seconds.into()),
            }),
            _ => Err(Error::Plan),
        }
    }
}

struct Order {
    to: String,
    talk: Duration,
}

/// What an agent has to tell.
enum Report {
    /// It is free again.
    Over {
        agent: usize,
        to: String,
        result: Result<Times, Error>,
        traffic: Traffic,
    },
    /// Its connection is gone, and it was in no call.
    Lost,
}

/// Agents that are signed in.
pub struct Agents {
    orders: Vec<mpsc::UnboundedSender<Order>>,
    reports: mpsc::UnboundedReceiver<Report>,
    free: VecDeque<usize>,
    peer: Option<Peer>,
    to: String,
    calls: u64,
    lost: u64,
}

impl Agents {
    /// Signs them in, one at a time: Kamailio 5.6 does not stand many TLS handshakes at once.
    pub async fn sign_in(
        kind: Kind,
        target: &Target,
        names: impl Iterator<Item = u32>,
        offer: &str,
        to: String,
        peer: Option<Peer>,
    ) -> Result<Self, Error> {
        let (report, reports) = mpsc::unbounded_channel();
        let mut orders = Vec::new();
        for (number, name) in names.enumerate() {
            let signing = Agent::sign_in(kind, target, name.to_string(), offer.to_owned());
            let agent = timeout(PATIENCE, signing)
                .await
                .map_err(|_| Error::Late)??;
            let (order, receiver) = mpsc::unbounded_channel();
            tokio::spawn(live(agent, number, receiver, report.clone()));
            orders.push(order);
        }
        Ok(Self {
            free: (0..orders.len()).collect(),
            orders,
            reports,
            peer,
            to,
            calls: 0,
            lost: 0,
        })
    }

    /// Makes the calls of a plan, waits for the last of them and tells what was seen.
    pub async fn run(&mut self, plan: &Plan) -> Value {
        let mut seen = Seen::default();
        let begin = Instant::now();
        let mut begun: u64 = 0;
        let mut active = 0;
        let mut last = begin;
        loop {
            let now = begin.elapsed();
            let time_left = now < plan.time;
            let due = match plan.rate {
                0 => u64::MAX,
                rate => (now.as_secs_f64() * f64::from(rate)) as u64 + 1,
            };
            while time_left && begun < due && active < plan.concurrent {
                let Some(agent) = self.free.pop_front() else {
                    break;
                };
                self.calls += 1;
                let number = format!("{:08}", self.calls);
                let order = Order {
                    to: self.to.replace("{n}", &number),
                    talk: plan.talk,
                };
                // one whose connection has gone takes no more orders
                if self.orders[agent].send(order).is_ok() {
                    begun += 1;
                    active += 1;
                    seen.most = seen.most.max(active);
                }
            }
            if active == 0 && !time_left {
                break;
            }
            let wait = match plan.rate {
                _ if !time_left => PATIENCE,
                0 => plan.time - now,
                rate if begun >= due => {
                    Duration::from_secs_f64(begun as f64 / f64::from(rate)).saturating_sub(now)
                }
                _ => plan.time - now,
            };
            match timeout(wait, self.reports.recv()).await {
                Ok(Some(Report::Over {
                    agent,
                    to,
                    result,
                    traffic,
                })) => {
                    active -= 1;
                    last = Instant::now();
                    let met = self.peer.as_ref().and_then(|peer| peer.take(&to));
                    if !matches!(result, Err(Error::Closed)) {
                        self.free.push_back(agent);
                    }
                    seen.note(result, met, &traffic);
                }
                Ok(Some(Report::Lost)) => self.lost += 1,
                Ok(None) => break,
                Err(_) => {}
            }
        }
        seen.told(self.lost, last - begin)
    }
}

/// An agent from its signing in until there is nothing more to do.
async fn live(
    mut agent: Agent,
    number_of_agent: usize,
    mut orders: mpsc::UnboundedReceiver<Order>,
    reports: mpsc::UnboundedSender<Report>,
) {
    loop {
        let order = tokio::select! {
            order = orders.recv() => order,
            _gone = agent.idle() => {
                // nobody is left to tell at the end
                let _told = reports.send(Report::Lost);
                return;
            }
        };
        let Some(order) = order else { return };
        let before = agent.link.traffic;
        let result = timeout(order.talk + PATIENCE, agent.call(&order.to, order.talk))
            .await
            .unwrap_or(Err(Error::Late));
        let gone = matches!(result, Err(Error::Closed));
        let _told = reports.send(Report::Over {
            agent: number_of_agent,
            to: order.to,
            result,
            traffic: agent.link.traffic.since(&before),
        });
        if gone {
            return;
        }
    }
}

/// Results of a run.
struct Seen {
    good: u64,
    failed: BTreeMap<String, u64>,
    most: usize,
    traffic: Traffic,
    /// From the call to its acceptance.
    setup: Histogram<u64>,
    /// From the call to the INVITE, and from the 200 to the acceptance: what the server adds.
    added: Histogram<u64>,
}

impl Default for Seen {
    fn default() -> Self {
        let histogram = || Histogram::new(3).expect("three digits are allowed");
        Self {
            good: 0,
            failed: BTreeMap::new(),
            most: 0,
            traffic: Traffic::default(),
            setup: histogram(),
            added: histogram(),
        }
    }
}

impl Seen {
    fn note(
        &mut self,
        result: Result<Times, Error>,
        met: Option<crate::peer::Seen>,
        traffic: &Traffic,
    ) {
        let times = match result {
            Ok(times) => times,
            Err(error) => {
                *self.failed.entry(error.to_string()).or_default() += 1;
                return;
            }
        };
        self.good += 1;
        self.traffic.add(traffic);
        let setup = times.accepted - times.called;
        self.setup += micros(setup);
        if let Some(met) = met {
            self.added += micros(setup.saturating_sub(met.answered - met.came));
        }
    }

    fn told(&self, lost: u64, took: Duration) -> Value {
        let failed: u64 = self.failed.values().sum();
        let each = |sum: u64| sum as f64 / self.good.max(1) as f64;
        json!({
            "calls": self.good + failed,
            "good": self.good,
            "failed": self.failed,
            "connections_lost": lost,
            "most_at_once": self.most,
            "seconds": took.as_secs_f64(),
            "rate": self.good as f64 / took.as_secs_f64().max(0.001),
            "frames_out": each(self.traffic.frames_out),
            "bytes_out": each(self.traffic.bytes_out),
            "frames_in": each(self.traffic.frames_in),
            "bytes_in": each(self.traffic.bytes_in),
            "setup_us": spread(&self.setup),
            "added_us": spread(&self.added),
        })
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn spread(histogram: &Histogram<u64>) -> Value {
    if histogram.is_empty() {
        return Value::Null;
    }
    let of = |(name, at): (&str, f64)| (name.to_owned(), json!(histogram.value_at_quantile(at)));
    Value::Object(QUANTILES.map(of).into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_four_numbers() {
        let plan: Plan = "100 1000 9900 60".parse().expect("a plan");
        assert_eq!((plan.rate, plan.concurrent), (100, 1000));
        for bad in ["", "1 2 3", "1 0 3 4", "1 2 3 4 5", "a 1 1 1"] {
            assert!(bad.parse::<Plan>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_failed_call_counts_and_has_no_time() {
        let mut seen = Seen::default();
        let now = Instant::now();
        let times = Times {
            called: now,
            accepted: now + Duration::from_millis(5),
        };
        let met = crate::peer::Seen {
            came: now + Duration::from_millis(1),
            answered: now + Duration::from_millis(3),
        };
        seen.note(Ok(times), Some(met), &Traffic::default());
        seen.note(Err(Error::Refused(503)), None, &Traffic::default());
        let told = seen.told(0, Duration::from_secs(1));
        assert_eq!(told["calls"], 2);
        assert_eq!(told["failed"]["refused with 503"], 1);
        assert_eq!(told["setup_us"]["p50"], 5003); // to three digits
        assert_eq!(told["added_us"]["max"], 3001);
    }
}
