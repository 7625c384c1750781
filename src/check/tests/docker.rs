//! Docker's API, as far as a check asks it, on a socket of the test's own.

use std::path::PathBuf;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    task::JoinHandle,
};

use super::{CheckSpec, Tools, look_with, probe::DockerHost, text, timeout_of};

struct Docker {
    socket: PathBuf,
    tools: Tools,
    served: JoinHandle<()>,
}

impl Docker {
    /// What runs in the container `web` prints this, and ends so; `None` never ends.
    fn start(printed: &[u8], code: Option<i32>) -> Docker {
        let printed = printed.to_vec();
        let name = format!("lictor-docker-{}-{}.sock", std::process::id(), fastrand::u64(..));
        let socket = std::env::temp_dir().join(name);
        let listener = UnixListener::bind(&socket).unwrap();
        let served = tokio::spawn(async move {
            let mut looks_at_exit = 0;
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                serve(stream, &printed, code, &mut looks_at_exit).await;
            }
        });
        let docker = DockerHost::of(Some(&format!("unix://{}", socket.display())));
        Docker { socket, tools: Tools { docker, ..Tools::here() }, served }
    }

    async fn look(&self, container: &str, args: &[&str]) -> (char, String) {
        look_with(&self.tools, spec(container, args)).await
    }
}

fn spec(container: &str, args: &[&str]) -> CheckSpec {
    CheckSpec {
        docker_container_id: text(container),
        args: Some(args.iter().map(|arg| arg.to_string()).collect()),
        timeout: timeout_of(1000),
        ..CheckSpec::default()
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        self.served.abort();
        let _best_effort = std::fs::remove_file(&self.socket);
    }
}

async fn serve(mut stream: UnixStream, printed: &[u8], code: Option<i32>, looks_at_exit: &mut u32) {
    let (line, body) = read_request(&mut stream).await;
    let answer = |status: &str, body: Value| {
        let body = body.to_string();
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    };
    let answered = match line.as_str() {
        "POST /containers/web/exec" if body["Cmd"] == json!(["/bin/up", "-q"]) => {
            answer("201 Created", json!({ "Id": "e1" }))
        }
        "POST /containers/web/exec" => {
            answer("400 Bad Request", json!({ "message": body["Cmd"].to_string() }))
        }
        "POST /exec/e1/start" => {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n";
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.write_all(printed).await.unwrap();
            if code.is_none() {
                // Until the look is over.
                let _closed = stream.read_to_end(&mut vec![]).await;
            }
            return;
        }
        "GET /exec/e1/json" => {
            *looks_at_exit += 1;
            answer("200 OK", json!({ "Running": *looks_at_exit < 3, "ExitCode": code }))
        }
        _ => answer("404 Not Found", json!({ "message": "No such container: gone" })),
    };
    stream.write_all(answered.as_bytes()).await.unwrap();
}

async fn read_request(stream: &mut UnixStream) -> (String, Value) {
    let mut request = Vec::new();
    loop {
        let mut bytes = [0; 1024];
        let length = stream.read(&mut bytes).await.unwrap();
        request.extend(&bytes[..length]);
        let text = String::from_utf8_lossy(&request);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let lower = head.to_ascii_lowercase();
        let wanted = lower.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        if body.len() >= wanted.unwrap_or(0) {
            let line = head.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1");
            return (line.into(), serde_json::from_str(body).unwrap_or_default());
        }
    }
}

#[tokio::test]
async fn a_program_in_a_container_is_judged_by_its_exit() {
    let long = [&b"\x01\0\0\0\0\0\0\x3c"[..], &[b'x'; 60]].concat();
    let both = b"\x01\0\0\0\0\0\0\x04all \x02\0\0\0\0\0\0\x04well";
    let cut = format!("Captured 40 of 60 bytes\n...\n{}", "x".repeat(40));
    let table: [(&[u8], i32, char, &str); 4] =
        [(both, 0, 'p', "all well"), (b"", 1, 'w', ""), (both, 137, 'c', "all well"), (&long, 0, 'p', &cut)];
    for (printed, code, status, output) in table {
        let docker = Docker::start(printed, Some(code));
        assert_eq!(docker.look("web", &["/bin/up", "-q"]).await, (status, output.into()));
    }
}

#[tokio::test]
async fn what_docker_does_not_do_is_critical() {
    let docker = Docker::start(b"", None);
    let table = [
        ("web", &["/bin/up", "-q"][..], "Timed out (1s) running check"),
        ("web", &["sh", "-c", "x"], "docker: 400 [\"sh\",\"-c\",\"x\"]"),
        ("gone", &["x"], "docker: 404 No such container: gone"),
        ("../x", &["x"], "docker: \"../x\" is no container's name or id"),
    ];
    for (container, args, output) in table {
        assert_eq!(docker.look(container, args).await, ('c', output.into()));
    }
    let nowhere = Tools { docker: DockerHost::of(Some("unix:///nope")), ..Tools::here() };
    let missing = "docker: dial unix /nope: connect: no such file or directory";
    assert_eq!(look_with(&nowhere, spec("web", &["x"])).await, ('c', missing.into()));
}
