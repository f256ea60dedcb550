// Package program has what the programs of Crossway do alike: their version,
// flags and log (Main, Parse, Version), how they reach an API server
// and which kinds of it they know (Client, Mapper), who of their replicas may write
// (LeaderElection, Leadership), the options of their controllers
// (ControllerOptions), and how they notice that they are stuck (Watchdog).
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
