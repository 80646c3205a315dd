//! `jobcast demo`: publishes simulated jobs to a running gateway.

use std::time::Duration;

use clap::Args;
use reqwest::{Client, StatusCode, Url};
use serde_json::{Value, json};

use super::{Failure, block_on};

#[derive(Debug, Args)]
pub struct DemoArguments {
    /// The gateway's address
    #[arg(long, env = "JOBCAST_URL", default_value = "http://127.0.0.1:3000")]
    url: Url,
    /// The key to publish with
    #[arg(long, env = "JOBCAST_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
    /// The token to publish with, in place of a key
    #[arg(long, env = "JOBCAST_TOKEN", hide_env_values = true, conflicts_with = "api_key")]
    token: Option<String>,
    /// How many jobs to simulate
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    jobs: u32,
    /// How many steps a second each job makes
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rate: u32,
}

/// The names of the simulated jobs, and their steps.
const STORIES: [(&str, &[&str]); 5] = [
    ("import", &["reading the file", "checking rows", "writing rows", "building the index"]),
    ("render", &["loading the scene", "tracing rays", "removing noise", "encoding"]),
    ("answer", &["reading the question", "thinking", "writing", "checking the facts"]),
    ("report", &["collecting figures", "drawing charts", "laying out pages"]),
    ("backup", &["taking a snapshot", "compressing", "sending", "verifying"]),
];

/// How many steps a job makes from 0 to 100.
const STEPS: u32 = 25;

/// Publishes a few jobs. Most of them complete, and some fail.
pub fn run(arguments: &DemoArguments) -> Result<(), Failure> {
    block_on(async {
        let publisher = Publisher::new(arguments)?;
        let run = std::process::id();
        println!("simulating {} jobs; watch them at {}", arguments.jobs, arguments.url);
        let jobs = (0..arguments.jobs).map(|number| simulate(&publisher, arguments.rate, run, number));
        futures_util::future::try_join_all(jobs).await?;
        Ok(())
    })
}

async fn simulate(publisher: &Publisher, rate: u32, run: u32, number: u32) -> Result<(), Failure> {
    let (name, steps) = STORIES[number as usize % STORIES.len()];
    let job = format!("demo-{run}-{name}-{}", number + 1);
    let user = format!("demo-user-{}", number % 2 + 1);
    publisher.publish(&job, "update", json!({"status": "queued", "userId": user})).await?;
    // Each job begins a little later and has its own pace.
    let pace = Duration::from_secs(1) / rate;
    tokio::time::sleep(pace * (number % 7)).await;
    let fails = number % 4 == 3;
    for step in 0..=STEPS {
        let progress = step * 100 / STEPS;
        if fails && progress > 60 {
            publisher
                .publish(&job, "error", json!({"error": "the disk is full (this is only a demo)"}))
                .await?;
            println!("{job} failed");
            return Ok(());
        }
        let message = steps[(step as usize * steps.len() / (STEPS as usize + 1)).min(steps.len() - 1)];
        publisher.publish(&job, "progress", json!({"progress": progress, "message": message})).await?;
        tokio::time::sleep(pace + pace * (number % 3) / 2).await;
    }
    publisher.publish(&job, "completed", json!({"result": {"steps": STEPS, "by": "jobcast demo"}})).await?;
    println!("{job} completed");
    Ok(())
}

/// Publishes over HTTP, as any backend would.
struct Publisher {
    client: Client,
    url: Url,
    credential: Option<String>,
}

impl Publisher {
    fn new(arguments: &DemoArguments) -> Result<Self, Failure> {
        let client = Client::builder().timeout(Duration::from_secs(10)).build()?;
        let credential = arguments.api_key.clone().or_else(|| arguments.token.clone());
        Ok(Self { client, url: arguments.url.clone(), credential })
    }

    async fn publish(&self, job: &str, kind: &str, body: Value) -> Result<(), Failure> {
        let url = self.url.join(&format!("api/jobs/{job}/{kind}"))?;
        let mut request = self.client.post(url).json(&body);
        if let Some(credential) = &self.credential {
            request = request.bearer_auth(credential);
        }
        let unreachable = |error: reqwest::Error| {
            format!("cannot reach the gateway at {} (--url): {error}; is `jobcast serve` running?", self.url)
        };
        let answer = request.send().await.map_err(unreachable)?;
        match answer.status() {
            StatusCode::OK => Ok(()),
            status => {
                Err(format!("the gateway refused {job} {kind}: {status}: {}", answer.text().await?).into())
            }
        }
    }
}
