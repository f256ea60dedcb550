// Package lbsync decides where requests go: Split divides a region's demand over the members of an import, Assign
// turns one assignment, the endpoints and the shares into one load assignment, and ProgramFor selects what a place
// serves of everything else. Demand and Health say from load reports what Split needs to know.
//
// It is pure: no client, clock, log, metric or goroutine; time is an argument. It never sees a Kubernetes object, and
// protobuf only in its child lbsync/envoy.
//
// # The arithmetic of Split
//
// For one import: demand D(r) per region; members m with region, ready endpoints n(m) and scaler s(m); a rate per
// endpoint, or none. cap(m) = n(m) x rate x s(m). A region's ranks are: its own members together (also when it has
// none); each region that its EdgePool names as nearest, in that order; all others together, after every region's
// named ranks. With mode Spray there is one rank with everybody.
//
//  1. Pour, rank by rank. All regions place on their rank 1 before any places on its rank 2. At a rank all regions
//     pour together from time 0 to 1, each at a speed equal to what it had left when the rank began, over those
//     members of its rank that are not full, in proportion to their cap. A region without demand pours too and fills
//     nobody, so that its first request has a place.
//  2. The world is full. When all demand is more than all usable capacity, every cap is first multiplied by demand /
//     capacity: everything is overfilled alike and nearness still holds. What a region still cannot place, because it
//     does not see every member, is spread in proportion to cap. Nothing is rejected.
//  3. No rate: nobody fills and demand plays no part. At a level u only members with s(m) > u count, and the first
//     rank with a ready one takes all, in proportion to n(m); shares are the average over u from 0 to the largest
//     scaler of a ready member.
//  4. Nobody has capacity: every scaler counts as 1. No endpoint ready anywhere: no shares.
//
// A member held out for a region counts as n(m) = 0 there and gets, with the others held out, 1 % of that region's
// requests, taken off first. Where every member would be held out none is, for failing tells nothing then; those that
// the ranks leave without a part get the 1 %, so that each is tried. A member is dead in a region when not even
// connections can be made: where all are dead, requests go to all alike, in proportion to n(m), and a rule's other
// backends get nearly all of the import's weight (Takeover).
//
// # Example
//
// Two pods that take 10 requests per second in each of us and eu, 30 of them arriving in us:
//
//	Split(SplitInput{
//		Rate:    10,
//		Members: []Capacity{{"us-west", "us", 2, 1}, {"eu-west", "eu", 2, 1}},
//		Regions: []RegionDemand{{Region: "us", Demand: 30}},
//	}) // us: us-west 666,667, eu-west 333,333 parts of a million
package lbsync
