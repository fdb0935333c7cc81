//! What the kubelet of this node says of its pods, and of who has which GPU (`pod_resources`). Of pods it is asked at its own
//! interface (`GET /pods`): their labels, and names where
//! its directories of logs are not at hand. Read-only, and only where the configuration says so.
//!
//! Asked at the start, when a pod is seen that the last answer did not have, and each minute, because labels change.

mod annotations;
mod client;
mod config;
mod list;
pub mod pod_resources;
mod quantity;

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, mpsc, watch},
    time::{Instant, sleep_until, timeout},
};

use self::{client::AskError, list::Said};
pub use self::{config::KubeletApi, pod_resources::PodResourcesConfig};
use crate::{
    clock,
    core::chain,
    identity::pod::Page,
    message::Message,
    series::{Point, Sample, agent},
};

/// However many pods are new: between two questions.
const LEAST_PAUSE: Duration = Duration::from_secs(1);
/// However few.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Asks until it is told to stop; `wanted` is notified when a pod is not known. `pages` is where annotations point.
pub async fn run(
    api: KubeletApi,
    wanted: Arc<Notify>,
    pages: watch::Sender<Vec<Page>>,
    messages: mpsc::Sender<Message>,
    mut stop: watch::Receiver<bool>,
) {
    let mut said = None;
    loop {
        let begun = Instant::now();
        let taken_boot_ns = clock::boot_ns();
        let asked = tokio::select! {
            asked = ask(&api) => asked,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        let points = match asked {
            Ok(Said { pods, points: fares, pages: said_pages }) => {
                pages.send_replace(said_pages);
                #[expect(clippy::cast_precision_loss, reason = "a node has few hundred pods")]
                let mut points = vec![Point::new(&agent::PODS, &[], pods.len() as f64)];
                points.extend(fares);
                if messages.send(Message::Pods { taken_boot_ns, pods }).await.is_err() {
                    return;
                }
                said = None;
                Ok(points)
            }
            Err(error) => {
                // Who knows what listens there by now.
                pages.send_replace(Vec::new());
                let why = chain(&error);
                // Once for each kind of reason: its words may be another each time.
                let kind = std::mem::discriminant(&error);
                if said.replace(kind) != Some(kind) {
                    tracing::warn!(%why, "the kubelet does not say which pods there are");
                }
                Err(why)
            }
        };
        let sample = Sample { source: "kubelet".to_owned(), taken_boot_ns, points };
        if messages.send(Message::Sample(sample)).await.is_err() {
            return;
        }
        let pause = async {
            sleep_until(begun + LEAST_PAUSE).await;
            let _ = timeout(LONGEST_PAUSE, wanted.notified()).await;
        };
        tokio::select! {
            () = pause => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

async fn ask(api: &KubeletApi) -> Result<Said, AskError> {
    let answer = client::pods(api).await?;
    list::parse(&answer).map_err(AskError::Json)
}
