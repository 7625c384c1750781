//! UDP targets.

use std::net::SocketAddr;

use tokio::net::UdpSocket;

use super::{CheckSpec, look, text, timeout_of};

fn udp(address: SocketAddr) -> CheckSpec {
    CheckSpec { udp: text(&address.to_string()), ..CheckSpec::default() }
}

/// `cluster.md` §6.4: silence passes.
#[tokio::test]
async fn an_answer_and_silence_pass_a_refusal_does_not() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let answered = async {
        let mut packet = [0; 9];
        let (length, from) = socket.recv_from(&mut packet).await.unwrap();
        socket.send_to(&[], from).await.unwrap();
        length
    };
    let success = format!("UDP connect {address}: Success");
    let (looked, asked) = tokio::join!(look(udp(address)), answered);
    assert_eq!((looked, asked), (('p', success.clone()), 0), "one empty datagram, and so is the answer");
    let silent = CheckSpec { timeout: timeout_of(50), ..udp(address) };
    assert_eq!(look(silent).await, ('p', success));
    // Now it hears its peer alone; others are refused.
    socket.connect("127.0.0.1:9").await.unwrap();
    let refused = format!("read udp {address}: read: connection refused");
    assert_eq!(look(udp(address)).await, ('c', refused));
    let nowhere = look(CheckSpec { udp: text("web"), ..CheckSpec::default() }).await;
    assert_eq!(nowhere, ('c', "dial udp: address web: missing port in address".into()));
}
