//! Inputs that come slowly, or not at all.

use super::*;

/// An input that says "nothing yet" before every byte.
struct Slow(io::Cursor<Vec<u8>>, bool);

impl Read for Slow {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.1 = !self.1;
        if self.1 { Err(io::ErrorKind::WouldBlock.into()) } else { self.0.read(&mut buf[..1]) }
    }
}

#[test]
fn an_input_that_pauses_anywhere_gives_the_same_packets_and_a_turn_at_every_pause() {
    let mut whole = LE.section();
    whole.extend(LE.interface(1, 0, &[]));
    whole.extend(LE.enhanced(0, 1, 1, b"a"));
    whole.extend(LE.block(0x0bad, &[0; 400]));
    whole.extend(LE.enhanced(0, 2, 1, b"b"));
    let skipped = whole.len() - 300;
    for (bytes, packets, cut) in [(whole.clone(), "ab", false), (whole[..skipped].to_vec(), "a", true)] {
        let slow = Slow(io::Cursor::new(bytes.clone()), false);
        let mut file = FileReader::from_input("slow".to_owned(), Box::new(slow), READ_BUFFER, &|| true).unwrap();
        let (mut got, mut turns) = (String::new(), 0);
        let mut take = |fs: &[Frame<'_>]| got.extend(fs.iter().map(|f| char::from(f.data[0])));
        while file.burst(BURST, Timestamp::from_nanos(i64::MAX), &mut take).unwrap() != Progress::End {
            turns += 1;
        }

        assert_eq!(got, packets);
        assert!(turns > 100, "{turns}");
        assert_eq!(file.truncated().is_some(), cut);
    }
}

#[test]
fn a_pipe_that_says_nothing_is_waited_for_while_it_is_wanted() {
    let (reader, _writer) = io::pipe().unwrap();
    let asked = std::cell::Cell::new(0);
    let wanted = || asked.replace(asked.get() + 1) < 2;
    let patient = Patient(File::from(std::os::fd::OwnedFd::from(reader)));

    let opened = FileReader::from_input("pipe".to_owned(), Box::new(patient), READ_BUFFER, &wanted);

    assert!(matches!(opened.err(), Some(CaptureError::Read { .. })));
    assert_eq!(asked.get(), 3);
}
