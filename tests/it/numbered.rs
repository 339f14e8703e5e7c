//! Packets that say their number, and dice that fall the same way every time: what the tests of kills and crashes are made of.

/// Numbers that look like chance and are the same every time.
#[derive(Debug)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    /// A number below `below`; 0 for 0.
    pub(crate) fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below.max(1)
    }

    /// An index below `below`; 0 for 0.
    pub(crate) fn pick(&mut self, below: usize) -> usize {
        usize::try_from(self.roll(below as u64)).unwrap()
    }
}

/// A UDP packet on Ethernet that says its number, with `len` bytes of payload.
pub(crate) fn frame(number: u64, len: usize) -> Vec<u8> {
    let mut payload = format!("number {number:012} ").into_bytes();
    payload.resize(len.max(payload.len()), b'.');
    let len = u16::try_from(payload.len()).unwrap();
    let mut data = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0];
    data.extend((28 + len).to_be_bytes());
    data.extend([0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0x75, 0x30, 0x75, 0x31]);
    data.extend((8 + len).to_be_bytes());
    data.extend([0, 0]);
    data.extend(payload);
    data
}

/// What such a packet says.
pub(crate) fn number(frame: &[u8]) -> u64 {
    std::str::from_utf8(&frame[42 + 7..42 + 19]).unwrap().parse().unwrap()
}
