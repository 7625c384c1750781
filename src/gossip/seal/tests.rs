//! What is sealed opens once, where it belongs, as it was; nothing else opens.

use super::*;

fn settings(pool: &str) -> Settings {
    Settings {
        packets: format!("{pool} dc1"),
        streams: pool.into(),
        verify_incoming: true,
        verify_outgoing: true,
    }
}

fn key(byte: u8) -> Key {
    Key::of(vec![byte; 32]).unwrap()
}

fn seal(start: u64, keys: &[u8]) -> Seal {
    with(&settings("lan"), start, keys)
}

fn with(settings: &Settings, start: u64, keys: &[u8]) -> Seal {
    let list: Vec<String> = keys.iter().map(|byte| key(*byte).base64()).collect();
    let keyring = if keys.is_empty() {
        Keyring::default()
    } else {
        Keyring::parse(serde_json::to_string(&list).unwrap().as_bytes()).unwrap()
    };
    Seal::new(settings, start, keyring)
}

fn packet(seal: &mut Seal, plain: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    seal.seal_packet(plain, &mut out);
    out
}

fn open(seal: &mut Seal, bytes: &[u8]) -> Result<Vec<u8>, Refused> {
    seal.open_packet(&mut bytes.to_vec()).map(<[u8]>::to_vec)
}

#[test]
fn a_packet_opens_once() {
    for (keys, overhead) in [(&[][..], OPEN_HEAD), (&[1], OVERHEAD)] {
        let (mut one, mut other) = (seal(1, keys), seal(2, keys));
        for plain in [&b""[..], b"ping", &[7; 1352]] {
            let bytes = packet(&mut one, plain);
            assert_eq!(bytes.len(), plain.len() + overhead);
            assert_eq!(open(&mut other, &bytes).as_deref(), Ok(plain));
            if !keys.is_empty() {
                assert!(plain.is_empty() || !bytes.windows(plain.len()).any(|part| part == plain));
                assert_eq!(open(&mut other, &bytes), Err(Refused::Replayed));
                assert_eq!(open(&mut seal(3, keys), &bytes).as_deref(), Ok(plain), "others heard nothing");
            }
        }
    }
    const { assert!(OVERHEAD <= 48) };
}

#[test]
fn keys_of_every_length_and_of_every_start_differ() {
    let bytes = [16, 24, 32].map(|length| {
        let keyring = Keyring::new(Some(Key::of(vec![1; length]).unwrap()));
        packet(&mut Seal::new(&settings("lan"), 1, keyring), &[0; 32])
    });
    assert!(bytes[0] != bytes[1] && bytes[1] != bytes[2] && bytes[0] != bytes[2]);
    let (one, other) = (packet(&mut seal(1, &[1]), &[0; 32]), packet(&mut seal(2, &[1]), &[0; 32]));
    assert_ne!(one[HEAD..], other[HEAD..], "the same count of another start is another nonce's key");
}

#[test]
fn another_key_another_pool_another_datacenter_do_not_open() {
    let bytes = packet(&mut seal(1, &[1]), b"ping");
    assert_eq!(open(&mut seal(2, &[2]), &bytes), Err(Refused::Key));
    assert_eq!(open(&mut seal(2, &[]), &bytes), Err(Refused::Key));
    assert_eq!(open(&mut seal(2, &[2, 1]), &bytes).as_deref(), Ok(&b"ping"[..]), "any key of the ring");
    assert_eq!(open(&mut with(&settings("wan"), 2, &[1]), &bytes), Err(Refused::Broken));
    let elsewhere = Settings { packets: "lan dc2".into(), ..settings("lan") };
    assert_eq!(open(&mut with(&elsewhere, 2, &[1]), &bytes), Err(Refused::Broken));
    let plain = packet(&mut seal(1, &[]), b"ping");
    assert_eq!(open(&mut with(&elsewhere, 2, &[]), &plain), Err(Refused::Broken));
}

/// Neither those who have the key already nor those who have not yet are lost, at any step.
#[test]
fn encryption_is_turned_on_step_by_step() {
    let steps = [(&[][..], true, true), (&[1], false, false), (&[1], false, true), (&[1], true, true)];
    for pair in steps.windows(2) {
        let [mut one, mut other] = [pair[0], pair[1]].map(|(keys, incoming, outgoing)| {
            let settings =
                Settings { verify_incoming: incoming, verify_outgoing: outgoing, ..settings("lan") };
            with(&settings, keys.len() as u64, keys)
        });
        let to_other = packet(&mut one, b"there");
        assert_eq!(open(&mut other, &to_other).as_deref(), Ok(&b"there"[..]), "{pair:?}");
        let back = packet(&mut other, b"back");
        assert_eq!(open(&mut one, &back).as_deref(), Ok(&b"back"[..]), "{pair:?}");
    }
    let plain = packet(&mut seal(1, &[]), b"ping");
    assert_eq!(open(&mut seal(2, &[1]), &plain), Err(Refused::Unencrypted));
}

#[test]
fn keys_change_while_packets_are_on_their_way() {
    let (mut one, mut other) = (seal(1, &[1]), seal(2, &[1]));
    let early = packet(&mut one, b"early");
    one.set_keyring(with(&settings("lan"), 0, &[2, 1]).keyring().clone());
    let late = packet(&mut one, b"late");
    assert_eq!(open(&mut other, &late), Err(Refused::Key));
    other.set_keyring(with(&settings("lan"), 0, &[1, 2]).keyring().clone());
    assert!(open(&mut other, &late).is_ok() && open(&mut other, &early).is_ok());
    assert_eq!(open(&mut other, &late), Err(Refused::Replayed), "counts go on under other keys");
    other.set_keyring(with(&settings("lan"), 0, &[2]).keyring().clone());
    assert_eq!(open(&mut other, &packet(&mut seal(3, &[1]), b"removed")), Err(Refused::Key));
}

/// Seeds stand for whoever sends what he likes.
#[test]
fn nothing_that_was_changed_opens() {
    for keys in [&[][..], &[1]] {
        let mut refused = [0; 6];
        for seed in 0..5_000 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let plain: Vec<u8> = (0..rng.usize(..200)).map(|_| rng.u8(..)).collect();
            let mut bytes = packet(&mut seal(seed, keys), &plain);
            let was = bytes.clone();
            match rng.u8(..4) {
                0 => bytes.truncate(rng.usize(..bytes.len())),
                1 => {
                    let at = rng.usize(..bytes.len());
                    bytes[at] ^= 1 << rng.u8(..8);
                }
                2 => bytes.extend((0..rng.usize(1..50)).map(|_| rng.u8(..))),
                _ => bytes.iter_mut().for_each(|byte| *byte = rng.u8(..)),
            }
            if bytes == was {
                continue;
            }
            let why = open(&mut seal(0, keys), &bytes).expect_err(&format!("seed {seed}"));
            refused[why.place()] += 1;
        }
        assert!(refused[Refused::Broken.place()] > 500, "{refused:?}");
        assert!(
            refused[Refused::Version.place()] > 500 && refused[Refused::Size.place()] > 20,
            "{refused:?}"
        );
    }
}

#[test]
fn whoever_has_no_key_fills_no_memory() {
    let mut own = seal(0, &[1]);
    for start in 1..200 {
        let mut bytes = packet(&mut seal(start, &[1]), b"ping");
        *bytes.last_mut().unwrap() ^= 1;
        assert_eq!(open(&mut own, &bytes), Err(Refused::Broken));
    }
    assert!(own.subkeys.is_empty());
    for start in 0..SUBKEYS_MAX as u64 + 100 {
        let bytes = packet(&mut seal(start, &[1]), b"ping");
        assert!(open(&mut own, &bytes).is_ok());
    }
    assert!(own.subkeys.len() <= SUBKEYS_MAX);
}

/// A whole direction, sealed into chunks.
fn chunks(seal: &mut Seal, direction: &mut Direction, parts: &[&[u8]]) -> Vec<Vec<u8>> {
    let sealed = parts.iter().enumerate().map(|(at, part)| {
        let mut out = Vec::new();
        seal.seal_chunk(direction, part, at + 1 == parts.len(), &mut out);
        out
    });
    sealed.collect()
}

fn read(seal: &mut Seal, direction: &mut Direction, chunks: &[Vec<u8>]) -> Result<Vec<u8>, Refused> {
    let mut all = Vec::new();
    for (at, chunk) in chunks.iter().enumerate() {
        all.extend_from_slice(seal.open_chunk(direction, at + 1 == chunks.len(), &mut chunk.clone())?);
    }
    Ok(all)
}

#[test]
fn a_stream_is_a_request_and_its_answer() {
    for keys in [&[][..], &[1]] {
        let (mut one, mut other) = (seal(1, keys), seal(2, keys));
        let mut asks = Direction::request();
        let request = chunks(&mut one, &mut asks, &[b"who ", b"is ", b"there"]);
        let mut asked = Direction::request();
        assert_eq!(read(&mut other, &mut asked, &request).as_deref(), Ok(&b"who is there"[..]));
        let answer = chunks(&mut other, &mut Direction::answer(&asked), &[b"I ", b"am"]);
        assert_eq!(read(&mut one, &mut Direction::answer(&asks), &answer).as_deref(), Ok(&b"I am"[..]));

        let again = read(&mut other, &mut Direction::request(), &request);
        assert_eq!(again.is_err(), !keys.is_empty());
        for broken in [
            vec![request[1].clone(), request[0].clone(), request[2].clone()],
            vec![request[0].clone(), request[2].clone()],
            vec![request[0].clone(), request[1].clone()],
        ] {
            let outcome = read(&mut seal(3, keys), &mut Direction::request(), &broken);
            assert_eq!(outcome, Err(Refused::Broken));
        }
        if !keys.is_empty() {
            assert_eq!(again, Err(Refused::Replayed));
            let mut next = Direction::request();
            chunks(&mut one, &mut next, &[b"and now?"]);
            let elsewhere = read(&mut one, &mut Direction::answer(&next), &answer);
            assert_eq!(elsewhere, Err(Refused::Broken), "an answer to another request");
            let as_request = read(&mut one, &mut Direction::request(), &answer);
            assert_eq!(as_request, Err(Refused::Broken));
        }
    }
}

#[test]
fn a_stream_that_begins_encrypted_goes_on_so() {
    let lenient = Settings { verify_incoming: false, ..settings("lan") };
    let (mut one, mut other) = (with(&lenient, 1, &[1]), with(&lenient, 2, &[1]));
    let mut asks = Direction::request();
    let mut request = chunks(&mut one, &mut asks, &[b"who ", b"is ", b"there"]);
    let mut forged = Direction::request();
    let mut stranger = with(&Settings { verify_outgoing: false, ..lenient }, 3, &[]);
    (forged.of, forged.next) = (asks.of, 1);
    request[1] = chunks(&mut stranger, &mut forged, &[b"was ", b""])[0].clone();
    assert_eq!(read(&mut other, &mut Direction::request(), &request), Err(Refused::Broken));
}

/// As packets, at any place of a stream: what was changed opens nothing, and what was whole before stays whole.
#[test]
fn no_chunk_that_was_changed_opens() {
    for keys in [&[][..], &[1]] {
        for seed in 0..2_000 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let parts: Vec<Vec<u8>> =
                (0..3).map(|_| (0..rng.usize(..60)).map(|_| rng.u8(..)).collect()).collect();
            let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
            let mut request = chunks(&mut seal(seed + 1, keys), &mut Direction::request(), &parts);
            let changed = rng.usize(..3);
            let was = request[changed].clone();
            match rng.u8(..3) {
                0 => request[changed].truncate(rng.usize(..was.len())),
                1 => request[changed][rng.usize(..was.len())] ^= 1 << rng.u8(..8),
                _ => request[changed] = (0..rng.usize(..100)).map(|_| rng.u8(..)).collect(),
            }
            if request[changed] != was {
                let outcome = read(&mut seal(0, keys), &mut Direction::request(), &request);
                assert!(outcome.is_err(), "seed {seed}");
            }
        }
    }
    let mut large = vec![0; CHUNK_SEALED_BYTES_MAX + 1];
    let outcome = seal(0, &[1]).open_chunk(&mut Direction::request(), true, &mut large).map(<[u8]>::len);
    assert_eq!(outcome, Err(Refused::Size));
}
