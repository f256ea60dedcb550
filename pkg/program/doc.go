// Package program has what the programs of Crossway do alike: their version,
// flags and log (Main, Parse, Version), how they reach an API server
// (ClientConfig), how replicas elect a leader (LeaderElection), and the options
// of their controllers (ControllerOptions).
//
// It knows nothing of what a program is for: wiring is in cmd, behaviour in
// the packages that cmd wires.
//
// Example:
//
//	func main() { program.Main("member-agent", run) }
//
//	func run(ctx context.Context, args []string, stderr io.Writer) error {
//		var options Options
//		log, err := program.Parse("member-agent", &options, args, stderr)
//		...
//	}
package program
