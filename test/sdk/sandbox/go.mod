module github.com/muster-hub/muster/test/sdk/sandbox

go 1.26.0
