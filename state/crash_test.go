package state

const helperEnv = "FLOW_STATE_TEST_HELPER"

func helper() int { return 0 }
