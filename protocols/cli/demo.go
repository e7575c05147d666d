package cli

type demoGroup struct{}
