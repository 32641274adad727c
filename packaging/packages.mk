# What is handed out beside the Debian package, and what it is made of; part of the Makefile.

.PHONY: dist licences sbom

dist: ## source release, npm package and bill of materials, with their checksums: dist/
	@scripts/install-deps.sh build client
	@echo "==> dist"
	@packaging/dist.sh dist

licences: ## licences, sources and bans of all crates, by cargo-deny and deny.toml
	@packaging/cargo-tool.sh cargo-deny deny --workspace --locked check licenses bans sources

sbom: ## bill of materials of the module (CycloneDX): dist/rtc_json-VERSION.cdx.json
	@packaging/sbom.sh dist
