package lab

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"
)

// labForOthers makes the test binary start a lab and wait to be killed, as a test that hangs does.
const labForOthers = "LAB_TEST_STARTER"

func TestMain(m *testing.M) {
	Main()
	if name := os.Getenv(labForOthers); name != "" {
		l, err := Start(context.Background(), Options{Name: name, World: oneProvider(), Spool: Storage{Kind: "ext4", Bytes: 32 << 20}})
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("up", l.Init)
		time.Sleep(time.Hour)
	}
	os.Exit(m.Run())
}
