# The commands of this repository. Each is also a script or a cargo command that can be run alone.

.PHONY: help demo test check live soak chaos fuzz build sbom bench captures golden

help:
	@echo "make demo      show what it does: real calls, one subscriber targeted, TLS on"
	@echo "make test      the whole gate, as the build server runs it"
	@echo "make check     its quick part"
	@echo "make soak      the disk queue against its model, millions of cases (LC_SPOOL_CASES in each of two tests); whole systems, played (LC_SIM_SEEDS); names of files (LC_NAMES); floods of ten million frames (LC_FLOOD_FRAMES, LC_FLOOD_RATE)"
	@echo "make chaos     kills, cuts, full and sick disks, clocks, certificates under load, 100 rounds (LC_CHAOS_ROUNDS; root); deaths at every step (LC_CRASH_CASES)"
	@echo "make fuzz      every parser, with coverage, a minute each (LC_FUZZ_SECONDS); goes on from what it found the last time"
	@echo "make live      live calls between network namespaces, every scenario, by the release binary (root)"
	@echo "make build     a release binary: target/release/lc"
	@echo "make sbom      what that is made of: target/lc.cdx.json (CycloneDX)"
	@echo "make bench     what it costs, as ratios to tcpdump and to itself (BENCH_ROWS, BENCH_MB, BENCH_ROUNDS)"
	@echo "make captures  make the captures again from real programs (root)"
	@echo "make golden    write what lc says about them beside each; read the diff before committing it"

demo:
	scripts/demo.sh

test:
	scripts/gate.sh

check:
	scripts/check.sh

soak:
	LC_SPOOL_CASES=$${LC_SPOOL_CASES:-2000000} cargo test --release --locked --lib spool::tests::model -- --nocapture
	LC_NAMES=$${LC_NAMES:-1000000} cargo test --release --locked --lib record::name
	LC_SIM_SEEDS=$${LC_SIM_SEEDS:-10000} cargo test --release --locked --lib tests::simulation -- --nocapture
	LC_FLOOD_FRAMES=$${LC_FLOOD_FRAMES:-10000000} LC_FLOOD_RATE=$${LC_FLOOD_RATE:-100000} cargo test --release --locked --test it flood -- --nocapture

chaos:
	scripts/deps.sh test
	LC_CHAOS_ROUNDS=$${LC_CHAOS_ROUNDS:-100} cargo test --release --locked --test it many_rounds -- --nocapture --test-threads=1
	LC_CRASH_CASES=$${LC_CRASH_CASES:-1000} cargo test --release --locked --lib processor::tests::crash -- --nocapture

fuzz:
	scripts/fuzz.sh

live: build
	scripts/deps.sh test
	tests/live/run.sh target/release/lc plain cut restart swap traffic hunters

build:
	scripts/deps.sh build
	cargo build --locked --release

sbom:
	scripts/sbom.sh

bench:
	scripts/deps.sh demo
	cargo bench --locked --bench ratios

captures:
	scripts/deps.sh captures
	captures/make/all.sh

golden:
	LC_GOLDEN=write cargo test --locked --test it golden
