// SPDX-License-Identifier: Apache-2.0
//! Loads an image into a store and writes every file of it as a line: `image-tree STORE SOURCE`.

use isopod_image::{Store, tree};
use std::env;
use std::error::Error;
use std::io::{Write, stdout};
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args_os().skip(1);
    let (Some(store), Some(source)) = (args.next(), args.next()) else {
        return Err("usage: image-tree STORE SOURCE".into());
    };
    let store = Store::open(store)?;
    let mut out = stdout().lock();
    let loaded = store.load(Path::new(&source), &()).map_err(|error| {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            text.push_str("\n  cause: ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    })?;
    for image in loaded {
        for line in tree::lines(&store.resolve(&image.digest.to_string())?)? {
            writeln!(out, "{}", line?)?;
        }
    }
    Ok(())
}
