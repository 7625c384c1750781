//! The binary: everything is in the library, behind its command line.

fn main() -> std::process::ExitCode {
    lictor::cli::main()
}
