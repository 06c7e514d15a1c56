package main

import (
	"strings"
	"testing"
)

const rounds = `goos: linux
BenchmarkFloor-2   	       1	 500000000 ns/op	 1100000000 cpu-ns/op
BenchmarkFirstLook-2   	       1	 600000000 ns/op	 1320000000 cpu-ns/op
BenchmarkSecondLook-2   	       1	  50000000 ns/op
BenchmarkQueueByCause-2   	       1	 700000000 ns/op	  60000000 peak-bytes
BenchmarkQueueByCauseEmpty-2   	       1	  30000000 ns/op	  20000000 peak-bytes
BenchmarkPostqueue-2   	       1	2400000000 ns/op
PASS
BenchmarkFloor-2   	       1	 400000000 ns/op
BenchmarkFirstLook-2   	       1	 900000000 ns/op
BenchmarkPostqueue-2   	       1	2600000000 ns/op	 1320000000 cpu-ns/op
BenchmarkFloor-2   	       1	 410000000 ns/op
BenchmarkFirstLook-2   	       1	 590000000 ns/op
BenchmarkOther-2   	       1	   1000000 ns/op
BenchmarkLogSummary-2   	       1	  40000000 ns/op	 250.00 MB/s	  36000000 cpu-ns/op	  13000000 peak-bytes
BenchmarkLogSummaryGiant-2   	       1	 150000000 ns/op	 340.00 MB/s	 140000000 peak-bytes
BenchmarkPflogsumm-2   	       1	1000000000 ns/op	 10.00 MB/s	 720000000 cpu-ns/op
BenchmarkTriage-2   	       1	 400000000 ns/op
BenchmarkTriageDeaf-2   	       1	10100000000 ns/op
`

func TestTable(t *testing.T) {
	var out strings.Builder
	if err := run(strings.NewReader(rounds), &out, 100_000); err != nil {
		t.Fatal(err)
	}
	const want = `                                                 median      least       most  processor   peak RSS       read
open, read 4 kB, close all files (floor)       410.0 ms   400.0 ms   500.0 ms    1.100 s
first look: queue, causes, counts              600.0 ms   590.0 ms   900.0 ms    1.320 s
second look, nothing changed                    50.0 ms    50.0 ms    50.0 ms
holdfast queue --by cause -o json              700.0 ms   700.0 ms   700.0 ms               60.0 MB
  the same on an empty queue                    30.0 ms    30.0 ms    30.0 ms               20.0 MB
postqueue -j > /dev/null                        2.500 s    2.400 s    2.600 s    1.320 s
qshape deferred                              not measured
holdfast logs summary -o json                   40.0 ms    40.0 ms    40.0 ms    36.0 ms    13.0 MB   250 MB/s
  of half the log                            not measured
  of five times the log                        150.0 ms   150.0 ms   150.0 ms              140.0 MB   340 MB/s
pflogsumm > /dev/null                           1.000 s    1.000 s    1.000 s   720.0 ms               10 MB/s
  with all details switched off              not measured
holdfast triage, largest log of a day          400.0 ms   400.0 ms   400.0 ms
  all of the log in the last hour            not measured
  of a day, and the network drops all          10.100 s   10.100 s   10.100 s
holdfast account, ten lines a message        not measured
holdfast hold of all, on record              not measured
postsuper -h - deferred, the same IDs        not measured
holdfast hold of a tenth                     not measured
postsuper -h - deferred, the same IDs        not measured
holdfast delete of a tenth, with copies      not measured
postsuper -d - deferred, the same IDs        not measured
Other                                            1.0 ms

                                               measured        bar  processor
first look / floor                                 1.46     <= 1.5       1.20
postqueue -j / first look                          4.17       >= 3       1.00
qshape / first look                             unknown       >= 3
postqueue -j / second look                        50.00      >= 20
postqueue -j / holdfast queue                      3.57       >= 3
qshape / holdfast queue                         unknown       >= 3
pflogsumm / holdfast logs summary                 25.00      >= 20      20.00
holdfast hold of all / postsuper                unknown     <= 1.5
holdfast hold of a tenth / postsuper            unknown     <= 1.5
holdfast delete / postsuper                     unknown      <= 10
memory for each message                           400 B    < 400 B             missed
triage                                         400.0 ms    <= 10 s
triage, all of the log in the last hour         unknown    <= 10 s
triage, and the network drops all              10.100 s    <= 10 s             missed
memory for the largest log                     140.0 MB   < 128 MB             missed
`
	if out.String() != want {
		t.Errorf("the table is\n%s\nwant\n%s", out.String(), want)
	}
}

func TestNothingMeasuredIsAnError(t *testing.T) {
	for _, in := range []string{"", "PASS\n", "BenchmarkFloor-2 1 many ns/op\n"} {
		if err := run(strings.NewReader(in), &strings.Builder{}, 1); err == nil {
			t.Errorf("%q gives no error", in)
		}
	}
	if err := run(strings.NewReader(rounds), &strings.Builder{}, 0); err == nil {
		t.Error("a queue of no messages gives no error")
	}
}
