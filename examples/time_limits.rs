//! A service on tokio that gives up calls: each request has a time limit of its own, and whatever
//! was under way when it ran out hands its reply to nobody else.
//! `cargo run --example time_limits --features tokio`

use distcache::client::asynchronous::Client;
use distcache::server::Server;
use std::time::Duration;
use tokio::time::timeout;

/// One request: what it computes is stored though the request may be given up meanwhile.
async fn answer(client: Client, id: u64) -> Result<String, distcache::client::Error> {
    let minute = Duration::from_secs(60);
    let compute = move || async move {
        tokio::time::sleep(Duration::from_millis(5)).await;
        format!("page {id}")
    };
    client.get_or_compute(format!("page:{id}"), minute, compute).await
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = Server::bind("127.0.0.1:0")?;
    let client = Client::connect([server.addresses()[0].to_string()])?;
    for (round, limit) in [2, 2, 1000].into_iter().enumerate() {
        let limit = Duration::from_millis(limit);
        let requests: Vec<_> =
            (0..100).map(|id| tokio::spawn(timeout(limit, answer(client.clone(), id)))).collect();
        let (mut right, mut wrong, mut given_up) = (0, 0, 0);
        for (id, request) in requests.into_iter().enumerate() {
            match request.await? {
                Ok(page) => match page? == format!("page {id}") {
                    true => right += 1,
                    false => wrong += 1,
                },
                Err(_) => given_up += 1,
            }
        }
        println!("round {round}: {right} right, {given_up} given up, {wrong} wrong");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("{} connection(s)", client.servers()[0].connections);
    Ok(())
}
