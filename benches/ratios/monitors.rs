//! Monitors that ask for everything and read nothing.

use std::time::Duration;

use lippycat::wire::data::data_service_client::DataServiceClient;
use lippycat::wire::data::{PacketBatch, SubscribeRequest};
use lippycat::wire::management::StatusRequest;
use lippycat::wire::management::management_service_client::ManagementServiceClient;
use tokio::runtime::Runtime;
use tonic::Streaming;
use tonic::transport::Endpoint;

/// Subscribed until this is dropped, each on a connection of its own.
pub(crate) struct Stalled {
    _streams: Vec<Streaming<PacketBatch>>,
    _runtime: Runtime,
}

impl Stalled {
    /// So many, at the processor of this address; returns once each has its place.
    pub(crate) fn at(address: &str, count: u32) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let address = format!("http://{address}");
        // what HTTP/2 and most of its libraries begin with: after that a stream is stalled
        let endpoint = Endpoint::from_shared(address.clone()).unwrap().initial_stream_window_size(65_535);
        let streams = runtime.block_on(async {
            let mut streams = Vec::new();
            for _ in 0..count {
                let channel = endpoint.connect().await.unwrap();
                streams.push(
                    DataServiceClient::new(channel).subscribe_packets(SubscribeRequest::default()).await.unwrap().into_inner(),
                );
            }
            let mut client = ManagementServiceClient::connect(address).await.unwrap();
            loop {
                let status = client.get_hunter_status(StatusRequest::default()).await.unwrap().into_inner();
                if status.processor_stats.unwrap().subscribers == count {
                    break streams;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        Self { _streams: streams, _runtime: runtime }
    }
}
