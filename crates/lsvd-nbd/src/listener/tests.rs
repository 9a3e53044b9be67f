//! Binding unix sockets and ports: what is refused, what is replaced, what is left behind.

use super::*;

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[tokio::test]
async fn a_socket_is_private_and_removed_at_the_end() {
    let directory = directory();
    let path = directory.path().join("a.sock");
    let listener = Listener::bind_unix(&path).await.unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    UnixStream::connect(&path).await.unwrap();
    drop(listener);
    assert!(!path.exists());
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "nothing else is left");
}

#[tokio::test]
async fn a_stale_socket_is_replaced() {
    let directory = directory();
    let path = directory.path().join("a.sock");
    // The standard library's listener leaves its file, as a killed daemon does.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let _listener = Listener::bind_unix(&path).await.unwrap();
    UnixStream::connect(&path).await.unwrap();
}

#[tokio::test]
async fn a_live_socket_is_refused_and_lives_on() {
    let directory = directory();
    let path = directory.path().join("a.sock");
    let first = Listener::bind_unix(&path).await.unwrap();
    let error = Listener::bind_unix(&path).await.unwrap_err();
    assert!(matches!(error, BindError::InUse { .. }), "{error}");
    assert!(error.to_string().contains("another process is listening"), "{error}");
    first.accept().await.unwrap();
    UnixStream::connect(&path).await.unwrap();
}

#[tokio::test]
async fn a_live_socket_whose_backlog_is_full_is_refused() {
    let directory = directory();
    let path = directory.path().join("a.sock");
    let socket = UnixSocket::new_stream().unwrap();
    socket.bind(&path).unwrap();
    let _busy = socket.listen(0).unwrap();
    let mut waiting = Vec::new();
    while let Ok(Ok(stream)) = timeout(Duration::from_millis(50), UnixStream::connect(&path)).await {
        waiting.push(stream);
        assert!(waiting.len() < 100);
    }
    let error = Listener::bind_unix(&path).await.unwrap_err();
    assert!(matches!(error, BindError::InUse { .. }), "{error}");
}

#[tokio::test]
async fn of_many_that_find_a_stale_socket_one_wins() {
    let directory = directory();
    let path = directory.path().join("a.sock");
    for _ in 0..20 {
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let racers: Vec<_> = (0..8).map(|_| tokio::spawn(Listener::bind_unix(path.clone()))).collect();
        let mut winners = Vec::new();
        for racer in racers {
            match racer.await.unwrap() {
                Ok(listener) => winners.push(listener),
                Err(error) => assert!(matches!(error, BindError::InUse { .. }), "{error}"),
            }
        }
        assert_eq!(winners.len(), 1);
        UnixStream::connect(&path).await.unwrap();
        drop(winners);
        assert!(!path.exists());
    }
}

#[tokio::test]
async fn what_is_not_a_socket_is_never_removed() {
    let directory = directory();
    let file = directory.path().join("file");
    fs::write(&file, "precious").unwrap();
    let link = directory.path().join("link");
    std::os::unix::fs::symlink(directory.path().join("nowhere"), &link).unwrap();
    for (path, what) in [(&*file, "a file"), (&link, "a symbolic link"), (directory.path(), "a directory")] {
        let error = Listener::bind_unix(path).await.unwrap_err();
        assert!(matches!(error, BindError::NotASocket { .. }) && error.to_string().contains(what), "{error}");
        assert!(fs::symlink_metadata(path).is_ok());
    }
    assert_eq!(fs::read(&file).unwrap(), b"precious");
}

#[tokio::test]
async fn a_socket_of_another_kind_is_refused() {
    let directory = directory();
    let path = directory.path().join("datagrams");
    let _datagrams = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    let error = Listener::bind_unix(&path).await.unwrap_err();
    assert!(matches!(error, BindError::Io { .. }), "{error}");
    assert!(path.exists());
}

#[tokio::test]
async fn a_path_that_can_not_be_bound_says_why() {
    let directory = directory();
    let error = Listener::bind_unix(directory.path().join("missing/a.sock")).await.unwrap_err();
    assert!(matches!(error, BindError::NoDirectory { .. }), "{error}");
    assert!(error.to_string().contains("missing'; create it first"), "{error}");

    let prefix_bytes = directory.path().as_os_str().len() + 1;
    let longest = directory.path().join("x".repeat(SOCKET_PATH_BYTES_MAX - prefix_bytes));
    let longer = directory.path().join("x".repeat(SOCKET_PATH_BYTES_MAX - prefix_bytes + 1));
    Listener::bind_unix(&longest).await.unwrap();
    let error = Listener::bind_unix(&longer).await.unwrap_err();
    assert!(matches!(error, BindError::PathTooLong { length_bytes: 108, .. }), "{error}");
    assert!(error.to_string().contains("the path has 108 bytes and a unix socket's may have 107"), "{error}");
}

#[tokio::test]
async fn a_socket_that_somebody_else_put_in_our_place_stays() {
    let directory = directory();
    let path = directory.path().join("a.sock");
    let ours = Listener::bind_unix(&path).await.unwrap();
    fs::remove_file(&path).unwrap();
    let _theirs = std::os::unix::net::UnixListener::bind(&path).unwrap();
    drop(ours);
    UnixStream::connect(&path).await.unwrap();
}

#[tokio::test]
async fn a_port_is_chosen_and_told() {
    let listener = Listener::bind(&"tcp:127.0.0.1:0".parse().unwrap()).await.unwrap();
    let ListenAddress::Tcp { host, port } = listener.address().clone() else { panic!("not a port") };
    assert_ne!(port, 0);
    let _client = TcpStream::connect((host.as_str(), port)).await.unwrap();
    let Stream::Tcp(stream, _) = listener.accept().await.unwrap() else { panic!("not a TCP stream") };
    assert!(stream.nodelay().unwrap());

    let error = Listener::bind_tcp(&host, port).await.unwrap_err();
    assert!(matches!(error, BindError::InUse { .. }), "{error}");
    let error = Listener::bind_tcp("192.0.2.1", 0).await.unwrap_err();
    assert!(error.to_string().starts_with("cannot listen on 'tcp:192.0.2.1:0': binding: "), "{error}");
}
