package demo

import (
	"fmt"
	"os"
	"time"
)

// waitedForCPU is for how long, since the start of the machine, some process was ready to run and had no processor
// (https://docs.kernel.org/accounting/psi.html); false where the kernel does not say so.
func waitedForCPU() (time.Duration, bool) {
	text, err := os.ReadFile("/proc/pressure/cpu")
	if err != nil {
		return 0, false
	}
	var ten, sixty, threeHundred float64
	var total int64
	_, err = fmt.Sscanf(string(text), "some avg10=%f avg60=%f avg300=%f total=%d", &ten, &sixty, &threeHundred, &total)
	return time.Duration(total) * time.Microsecond, err == nil
}

// duration tells how long something took. A figure of time says little where processes waited for a processor most of it.
func duration(began time.Time, waitedBefore time.Duration) string {
	took := time.Since(began)
	text := took.Round(100 * time.Millisecond).String()
	if waited, ok := waitedForCPU(); ok && took > 0 {
		text += fmt.Sprintf("; processes waited for a CPU in %.0f %% of it", 100*float64(waited-waitedBefore)/float64(took))
	}
	return text
}
