using System.Text.Json;
using Drover.Orchestrator.Backlog;

namespace Drover.Orchestrator.Tests.Backlog;

public sealed class QueryTests
{
    private const string P = TestDatabase.Project;

    [Fact]
    public void Status_json_has_the_documented_shape()
    {
        using var db = new TestDatabase();
        string epic = db.Transact(s => Board.AddEpic(s, P, "Demo")).Id;
        string a = db.Add("Task A", epic), b = db.Add("Task B", epic, blockedBy: a), c = db.Add("Task C");
        ClaimedTask claimed = db.Claim(db.StartRun(), 1)[0];
        db.Land(claimed, "feed");
        using JsonDocument json = JsonDocument.Parse(JsonSerializer.Serialize(BacklogQueries.Status(db.Session, P, "main"), BacklogJson.Default.StatusModel));
        JsonElement root = json.RootElement;
        Assert.Equal(["target", "counts", "tasks"], root.EnumerateObject().Select(p => p.Name));
        Assert.Equal(["ready", "blocked", "unreachable", "claimed", "in_progress", "paused", "completed", "failed", "cancelled"], root.GetProperty("counts").EnumerateObject().Select(p => p.Name));
        Assert.Equal(1, root.GetProperty("counts").GetProperty("completed").GetInt32());
        JsonElement first = root.GetProperty("tasks")[0];
        Assert.Equal(["id", "title", "status", "reason", "attempts", "epic", "blockedBy", "landed"], first.EnumerateObject().Select(p => p.Name));
        Assert.Equal((a, "completed", "feed", 1), (first.GetProperty("id").GetString(), first.GetProperty("status").GetString(), first.GetProperty("landed").GetString(), first.GetProperty("attempts").GetInt32()));
        JsonElement second = root.GetProperty("tasks")[1];
        Assert.Equal((b, "ready", JsonValueKind.Null), (second.GetProperty("id").GetString(), second.GetProperty("status").GetString(), second.GetProperty("landed").ValueKind));
        Assert.Equal(a, second.GetProperty("blockedBy")[0].GetString());
        Assert.Equal([a, b], BacklogQueries.Status(db.Session, P, "main", epic).Tasks.Select(t => t.Id));
        Assert.Equal(2, BacklogQueries.Counts(db.Session, P)["ready"]);
        Assert.Equal(c, BacklogQueries.Task(db.Session, P, c).Id);
    }

    [Fact]
    public void Info_shows_both_directions_attempts_errors_and_events()
    {
        using var db = new TestDatabase();
        string a = db.Add("Task A"), b = db.Add("Task B", blockedBy: a), child = db.Add("Part", parent: b);
        ClaimedTask claimed = db.Claim(db.StartRun(), 1)[0];
        Assert.True(db.Transact(s => Board.StartAttempt(s, P, a, 1, new AttemptFacts { Phase = "agent", Worktree = ".drover/worktrees/x", LogPath = ".drover/logs/x", CostMicros = null })));
        Assert.Equal("agent", BacklogQueries.Task(db.Session, P, a).Reason);
        db.Transact(s => Board.FailAttempt(s, P, a, 1, FailureKind.Gate, "tests are red", 1, "tail"));
        InfoModel info = BacklogQueries.Info(db.Session, P, a);
        Assert.Equal(("failed", "tests are red", ".drover/worktrees/x", ".drover/logs/x"), (info.Status, info.LastError, info.Worktree, info.LogPath));
        Assert.Equal(b, Assert.Single(info.Blocks).Id);
        Assert.Equal(("gate", "tail", "failed"), (info.Attempts[0].ErrorClass, info.Attempts[0].GateOutput, info.Attempts[0].Outcome));
        Assert.Equal(["task.created", "task.claimed", "task.started", "task.failed"], info.Events.Select(e => e.Type));
        InfoModel other = BacklogQueries.Info(db.Session, P, b);
        Assert.Equal("unreachable", other.BlockedBy.Count == 1 ? other.Status : "");
        Assert.Equal(child, Assert.Single(other.SubTasks).Id);
        Assert.Contains("tests are red", JsonSerializer.Serialize(info, BacklogJson.Default.InfoModel), StringComparison.Ordinal);
        Assert.Equal(claimed.WorkflowId, db.Task(a).WorkflowId);
    }

    [Fact]
    public void The_tree_has_epics_sub_tasks_and_the_rest()
    {
        using var db = new TestDatabase();
        string epic = db.Transact(s => Board.AddEpic(s, P, "Demo")).Id;
        string a = db.Add("Task A", epic), part = db.Add("Part", parent: a), free = db.Add("Free");
        IReadOnlyList<TreeEpic> tree = BacklogQueries.Tree(db.Session, P);
        Assert.Equal([epic, null], tree.Select(e => e.Id));
        Assert.Equal(part, Assert.Single(Assert.Single(tree[0].Tasks).Children).Id);
        Assert.Equal(free, Assert.Single(tree[1].Tasks).Id);
        Assert.Equal(2, Assert.Single(BacklogQueries.Epics(db.Session, P)).Counts.Values.Sum());
    }
}
