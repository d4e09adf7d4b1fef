//! What this machine can do: the limits that every figure is divided by, taken in the same sitting and interleaved with what
//! they are compared to. Rates are in MB/s, MB = 10^6 bytes.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result};
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};

const MIB: usize = 1 << 20;
/// Blocks of direct I/O begin at multiples of this in memory and in the file.
const ALIGNMENT: usize = 4096;

/// Bytes per second in MB/s.
pub fn rate(bytes: u64, begin: Instant) -> f64 {
    bytes as f64 / begin.elapsed().as_secs_f64() / 1e6
}

/// A buffer whose usable part is aligned for direct I/O, filled with bytes that do not compress.
#[derive(Debug)]
struct Aligned {
    bytes: Vec<u8>,
    begin: usize,
    len: usize,
}

impl Aligned {
    fn new(len: usize) -> Self {
        let mut bytes = vec![0; len + ALIGNMENT];
        StdRng::seed_from_u64(1).fill_bytes(&mut bytes);
        let begin = bytes.as_ptr().align_offset(ALIGNMENT);
        Self { bytes, begin, len }
    }

    fn get(&self) -> &[u8] {
        &self.bytes[self.begin..self.begin + self.len]
    }

    fn get_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.begin..self.begin + self.len]
    }
}

fn direct(path: &Path, write: bool) -> Result<File> {
    let flags = rustix::fs::OFlags::DIRECT.bits() as i32;
    let mut options = OpenOptions::new();
    options.read(!write).write(write).create(write).truncate(write).custom_flags(flags);
    options.open(path).with_context(|| format!("open {} for direct I/O", path.display()))
}

/// L_disk: appends of 1 MiB with O_DIRECT.
pub fn disk_append(dir: &Path, bytes: u64) -> Result<f64> {
    let path = dir.join("limit-append");
    let (file, block, begin) = (direct(&path, true)?, Aligned::new(MIB), Instant::now());
    for i in 0..bytes / MIB as u64 {
        file.write_all_at(block.get(), i * MIB as u64)?;
    }
    Ok(rate(bytes, begin))
}

/// Reads of 1 MiB with O_DIRECT, in order, of what [`disk_append`] left.
pub fn disk_read(dir: &Path, bytes: u64) -> Result<f64> {
    let path = dir.join("limit-append");
    let (file, mut block, begin) = (direct(&path, false)?, Aligned::new(MIB), Instant::now());
    for i in 0..bytes / MIB as u64 {
        file.read_exact_at(block.get_mut(), i * MIB as u64)?;
    }
    Ok(rate(bytes, begin))
}

/// L_sync: fdatasync for each MiB, overwriting a file that is there, as a recycled write-ahead log does.
pub fn sync_overwrite(dir: &Path, bytes: u64) -> Result<f64> {
    let path = dir.join("limit-sync");
    let (file, block) = (File::create(&path)?, Aligned::new(MIB));
    let blocks = bytes / MIB as u64;
    for i in 0..blocks {
        file.write_all_at(block.get(), i * MIB as u64)?;
    }
    file.sync_all()?;
    let begin = Instant::now();
    for i in 0..blocks {
        file.write_all_at(block.get(), i * MIB as u64)?;
        file.sync_data()?;
    }
    let rate = rate(bytes, begin);
    std::fs::remove_file(path)?;
    Ok(rate)
}

/// L_tcp: loopback TCP in writes of 1 MiB. The reader is a thread of its own; the kernel does the work in both cases.
pub fn tcp(bytes: u64) -> Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let reader = thread::spawn(move || -> Result<u64> {
        let (mut stream, _) = listener.accept()?;
        let (mut buffer, mut total) = (vec![0; MIB], 0);
        loop {
            match stream.read(&mut buffer)? {
                0 => return Ok(total),
                n => total += n as u64,
            }
        }
    });
    let (mut stream, block, begin) = (TcpStream::connect(address)?, Aligned::new(MIB), Instant::now());
    for _ in 0..bytes / MIB as u64 {
        stream.write_all(block.get())?;
    }
    drop(stream);
    let total = reader.join().map_err(|_| anyhow::anyhow!("reader panicked"))??;
    Ok(rate(total, begin))
}

/// L_srv: the least a broker has to do: TCP, CRC-32C, append to a file through the page cache, one byte of acknowledgement;
/// blocks of 64 KiB, 20 in flight.
pub fn server(dir: &Path, bytes: u64) -> Result<f64> {
    const BLOCK: usize = 64 << 10;
    const IN_FLIGHT: u64 = 20;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let path = dir.join("limit-server");
    let mut file = File::create(&path)?;
    let server = thread::spawn(move || -> Result<u32> {
        let (mut stream, _) = listener.accept()?;
        let (mut block, mut sum) = (vec![0; BLOCK], 0);
        while stream.read_exact(&mut block).is_ok() {
            sum ^= crc32c::crc32c(&block);
            file.write_all(&block)?;
            stream.write_all(&[1])?;
        }
        Ok(sum)
    });
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let (block, blocks, begin) = (Aligned::new(BLOCK), bytes / BLOCK as u64, Instant::now());
    let mut acks = stream.try_clone()?;
    let mut unanswered = 0u64;
    let mut answer = [0; IN_FLIGHT as usize];
    for _ in 0..blocks {
        while unanswered >= IN_FLIGHT {
            unanswered -= acks.read(&mut answer)? as u64;
        }
        stream.write_all(block.get())?;
        unanswered += 1;
    }
    while unanswered > 0 {
        unanswered -= acks.read(&mut answer)? as u64;
    }
    let rate = rate(bytes, begin);
    drop((stream, acks));
    server.join().map_err(|_| anyhow::anyhow!("server panicked"))??;
    std::fs::remove_file(path)?;
    Ok(rate)
}
