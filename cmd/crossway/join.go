package main

// agentRelease is the release of charts/member-agent, and the name of its Deployment.
const agentRelease = "crossway-member-agent"
