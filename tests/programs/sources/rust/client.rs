//! Sends a file and saves what comes back: client PORT FILE SAVED

use tokio::fs::File;
use tokio::io::{self, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::main]
async fn main() -> io::Result<()> {
    let words: Vec<String> = std::env::args().collect();
    let socket = TcpStream::connect(format!("127.0.0.1:{}", words[1])).await?;
    let (mut reader, mut writer) = socket.into_split();
    let mut file = File::open(&words[2]).await?;
    let sender = tokio::spawn(async move {
        io::copy(&mut file, &mut writer).await?;
        writer.shutdown().await
    });
    let mut saved = File::create(&words[3]).await?;
    io::copy(&mut reader, &mut saved).await?;
    saved.flush().await?;
    sender.await??;
    Ok(())
}
