//! One capture file being written: format, block and file together.

use std::fs::File;
use std::sync::Arc;

use super::append::{self, Found};
use super::behind::Behind;
use super::block::Block;
use super::dir::{Dir, sync_data};
use super::direct::{ALIGN, Appended};
use super::pcapng::{MAX_OVERHEAD, Noted, Section};
use super::{Format, MAX_CAPTURED, Packet, RecordError, pcap};
use crate::packet::LinkType;

/// How packets become records of this file.
#[derive(Debug)]
enum Encoder {
    Pcap(LinkType),
    PcapNg(Box<Section>),
}

/// A capture file and what of it is still in memory. The file may be closed in between ([`Self::park`]).
#[derive(Debug)]
pub(super) struct CaptureFile {
    name: Box<str>,
    encoder: Encoder,
    block: Block,
    disk: Option<Way>,
    packets: u64,
    packets_written: u64,
    /// The next packet needs a section header before it.
    section_due: bool,
    /// It has a name, and no file yet.
    fresh: bool,
    /// How long it was at the last [`Self::take_grown`].
    told: u64,
}

/// How blocks get into the file.
#[derive(Debug)]
enum Way {
    /// By whoever fills them.
    Here(Appended),
    /// By whoever makes the file durable.
    Behind(Arc<Behind>),
}

impl Way {
    fn here(file: File) -> Self {
        Self::Here(Appended::new(file))
    }

    fn file(&self) -> &Arc<File> {
        match self {
            Self::Here(disk) => disk.file(),
            Self::Behind(behind) => behind.file(),
        }
    }
}

/// A capture file that grew: what makes it durable, and how long it is then.
#[derive(Debug)]
pub struct Grown {
    /// Its name.
    pub name: Box<str>,
    /// Bytes in it; a record's end.
    pub bytes: u64,
    file: Arc<File>,
    behind: Option<Arc<Behind>>,
}

impl Grown {
    /// Writes what is not written yet.
    ///
    /// # Errors
    /// Retryable ones ([`RecordError::is_retryable`]); nothing is lost.
    pub fn write(&self) -> Result<(), RecordError> {
        self.behind.as_ref().map_or(Ok(()), |behind| behind.write(self.bytes))
    }

    /// Makes its bytes durable, which are written.
    ///
    /// # Errors
    /// [`RecordError::Io`]: what was not durable may be lost, also if this is called again.
    pub fn sync(&self) -> Result<(), RecordError> {
        sync_data(&self.file).map_err(|e| RecordError::io("sync", &*self.name, e))
    }
}

/// What a new or continued file is to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape<'a> {
    pub(super) format: Format,
    /// For pcap: the link type of the file.
    pub(super) link: LinkType,
    /// Bytes per `write(2)`.
    pub(super) block: usize,
    /// Whether a SHA-256 will be asked for.
    pub(super) hash: bool,
    /// Comment of the file, where the format has one.
    pub(super) comment: &'a str,
}

impl CaptureFile {
    /// Creates it; `None` when the name is taken. Its header is pending.
    pub(super) fn create(dir: &Dir, name: &str, shape: Shape<'_>) -> Result<Option<Self>, RecordError> {
        dir.announce(&[name.into()])?;
        let Some(disk) = dir.create_announced(name)? else { return Ok(None) };
        let mut file = Self::over(name, disk, shape, 0, 0);
        file.header();
        Ok(Some(file))
    }

    /// Continues an existing file whose last whole record is known.
    pub(super) fn continue_at(name: &str, disk: File, shape: Shape<'_>, found: &Found) -> Self {
        let shape = Shape { hash: shape.hash && found.end == 0, ..shape };
        let mut file = Self::over(name, disk, shape, found.end, found.packets);
        // A pcap continues under its own header; a pcapng gets a new section.
        if shape.format == Format::PcapNg || found.end == 0 {
            file.header();
        }
        file
    }

    /// From here on it is written by whoever makes it durable ([`Grown::write`]), `most` bytes at once, past the page cache, if the file
    /// system can.
    pub(super) fn bypass_cache(&mut self, dir: &Dir, most: usize) {
        self.disk = match self.disk.take() {
            Some(Way::Here(mut disk)) => Some(if disk.bypass_cache(dir, &self.name, most) {
                self.block.align(most, ALIGN);
                Way::Behind(Arc::new(Behind::new(disk, self.block.written(), dir.said(&self.name))))
            } else {
                Way::Here(disk)
            }),
            behind => behind,
        };
    }

    /// A file that is known from an earlier run and opened when it is next written to.
    pub(super) fn parked(name: &str, shape: Shape<'_>, written: u64, packets: u64) -> Self {
        let mut file = Self::new(name, Block::new(shape.block, written, false), shape, packets);
        match shape.format {
            _ if written == 0 => file.header(),
            Format::PcapNg => file.section_due = true,
            Format::Pcap => {}
        }
        file
    }

    /// A file that is created when it is first written to; its name is announced before.
    pub(super) fn named(name: &str, shape: Shape<'_>) -> Self {
        let mut file = Self { fresh: true, ..Self::new(name, Block::new(shape.block, 0, shape.hash), shape, 0) };
        file.header();
        file
    }

    fn over(name: &str, disk: File, shape: Shape<'_>, written: u64, packets: u64) -> Self {
        Self { disk: Some(Way::here(disk)), ..Self::new(name, Block::new(shape.block, written, shape.hash), shape, packets) }
    }

    fn new(name: &str, block: Block, shape: Shape<'_>, packets: u64) -> Self {
        Self {
            name: name.into(),
            encoder: Encoder::new(shape),
            told: block.written(),
            block,
            disk: None,
            packets,
            packets_written: packets,
            section_due: false,
            fresh: false,
        }
    }

    fn header(&mut self) {
        self.encoder.header(self.block.pending_mut());
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn packets(&self) -> u64 {
        self.packets
    }

    pub(super) fn packets_written(&self) -> u64 {
        self.packets_written
    }

    /// Whether packets wait to be written, or what was written of some is to be cut off.
    pub(super) fn owes_packets(&self) -> bool {
        self.packets != self.packets_written || self.block.is_torn()
    }

    pub(super) fn block(&self) -> &Block {
        &self.block
    }

    pub(super) fn pending_mut(&mut self) -> &mut Vec<u8> {
        self.block.pending_mut()
    }

    pub(super) fn is_open(&self) -> bool {
        self.disk.is_some()
    }

    /// Whether it has a name, and no file yet.
    pub(super) fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// What makes it durable, if it grew since the last call.
    pub(super) fn take_grown(&mut self) -> Option<Grown> {
        let bytes = self.block.written();
        let disk = self.disk.as_ref().filter(|_| bytes != self.told)?;
        self.told = bytes;
        let behind = match disk {
            Way::Here(_) => None,
            Way::Behind(behind) => Some(Arc::clone(behind)),
        };
        Some(Grown { name: self.name.clone(), bytes, file: Arc::clone(disk.file()), behind })
    }

    /// Closes the descriptor; what is pending stays pending.
    pub(super) fn park(&mut self) {
        self.disk = None;
    }

    /// At most how many bytes this packet adds.
    #[inline]
    pub(super) fn size_of(&self, pkt: &Packet<'_>) -> Result<usize, RecordError> {
        let len = pkt.data.len();
        if len > MAX_CAPTURED {
            return Err(RecordError::Oversize { len, max: MAX_CAPTURED });
        }
        Ok(len.saturating_add(match self.encoder {
            Encoder::Pcap(_) => pcap::RECORD_LEN,
            Encoder::PcapNg(_) => MAX_OVERHEAD,
        }))
    }

    /// Takes one packet into the block; [`Block::is_due`] was asked before. No I/O.
    #[inline]
    pub(super) fn push(&mut self, pkt: &Packet<'_>) -> Noted {
        self.packets = self.packets.saturating_add(1);
        if self.section_due {
            self.section_due = false;
            self.header();
        }
        let buf = self.block.pending_mut();
        match &mut self.encoder {
            Encoder::Pcap(_) => Noted { clamped: pcap::record(buf, pkt), shared_interface: false },
            Encoder::PcapNg(section) => section.record(buf, pkt),
        }
    }

    /// Writes what is pending, or leaves it to [`Grown::write`]; opens the file if it is parked. False when the file is not the one left
    /// behind: it vanished or changed its length; [`Self::rehome`] then.
    pub(super) fn flush(&mut self, dir: &Dir) -> Result<bool, RecordError> {
        if self.block.pending() == 0 && !self.block.is_torn() {
            return Ok(true);
        }
        if self.fresh {
            let Some(disk) = dir.create_announced(&self.name)? else { return Ok(false) };
            (self.disk, self.fresh) = (Some(Way::here(disk)), false);
        }
        if self.disk.is_none() {
            // Something else under the name, a link or a stranger's file, is as good as gone.
            let disk = match dir.open_existing(&self.name) {
                Ok(None) | Err(RecordError::Unsafe { .. }) => return Ok(false),
                Ok(Some(disk)) => disk,
                Err(e) => return Err(e),
            };
            let len = disk.metadata().map_err(|e| RecordError::io("inspect", dir.said(&self.name), e))?.len();
            if len != self.block.written() && !(self.block.is_torn() && len > self.block.written()) {
                return Ok(false);
            }
            self.disk = Some(Way::here(disk));
        }
        dir.reserve(&self.name, self.block.pending() as u64)?;
        if let Some(disk) = &mut self.disk {
            dir.note(&self.name);
            let written = match disk {
                Way::Here(disk) => self.block.flush(disk),
                Way::Behind(behind) => behind.give(&mut self.block),
            };
            written.map_err(|e| RecordError::io("write", dir.said(&self.name), e))?;
            self.packets_written = self.packets;
            if let Encoder::PcapNg(section) = &mut self.encoder {
                section.written();
            }
        }
        Ok(true)
    }

    /// Continues in another, newly created file with what is pending; what was written stays where it is.
    pub(super) fn rehome(&mut self, new: Self) {
        let mut header = Vec::new();
        if self.block.written() > 0 {
            self.encoder.header(&mut header);
        }
        self.block.rehome(header);
        self.packets = self.packets.saturating_sub(self.packets_written);
        self.packets_written = 0;
        self.section_due = false;
        (self.name, self.disk, self.fresh) = (new.name, new.disk, new.fresh);
    }

    /// SHA-256 of the file as it lies on the disk; read again if it was not summed while writing. `None` when it is gone.
    pub(super) fn sha256(&self, dir: &Dir) -> Result<Option<String>, RecordError> {
        match self.block.sha256() {
            Some(sum) => Ok(Some(sum)),
            None => match dir.open_existing(&self.name)? {
                Some(f) => append::sha256(f).map(Some).map_err(|e| RecordError::io("read", dir.said(&self.name), e)),
                None => Ok(None),
            },
        }
    }
}

impl Encoder {
    fn new(shape: Shape<'_>) -> Self {
        match shape.format {
            Format::Pcap => Self::Pcap(shape.link),
            Format::PcapNg => Self::PcapNg(Box::new(Section::new(shape.comment))),
        }
    }

    fn header(&self, buf: &mut Vec<u8>) {
        match self {
            Self::Pcap(link) => buf.extend_from_slice(&pcap::header(*link)),
            Self::PcapNg(section) => section.header(buf),
        }
    }
}
