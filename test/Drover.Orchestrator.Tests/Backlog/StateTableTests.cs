using Drover.Orchestrator.Backlog;
using Drover.Workflows;

namespace Drover.Orchestrator.Tests.Backlog;

public sealed class StateTableTests
{
    public static TheoryData<StoredStatus, TaskCommand> Cells()
    {
        var data = new TheoryData<StoredStatus, TaskCommand>();
        foreach (StoredStatus status in TaskStates.Statuses)
        {
            foreach (TaskCommand command in Enum.GetValues<TaskCommand>())
                data.Add(status, command);
        }
        return data;
    }

    /// <summary>D-14: each cell is tried on a real row by the function behind the command; the row then has exactly the status of the table.</summary>
    [Theory]
    [MemberData(nameof(Cells))]
    public void D14_every_cell_of_the_state_table_is_what_the_board_does(StoredStatus status, TaskCommand command)
    {
        using var db = new TestDatabase();
        (RunRow run, string task, int attempt) = Reach(db, status);
        long events = Events(db);
        bool applied = Apply(db, run, task, attempt, command);
        StoredStatus? expected = TaskStates.Next(status, command);
        Assert.Equal(expected ?? status, db.Task(task).Status);
        Assert.Equal(expected is not null, applied);
        // An event is written exactly when something changed.
        bool changed = expected is not null && (expected != status || command == TaskCommand.Retry);
        Assert.Equal(changed, Events(db) > events);
    }

    /// <summary>DROVER_UPDATE_DOCS=1 writes the table into the document instead of comparing.</summary>
    [Fact]
    public void The_document_has_the_table_of_the_code()
    {
        string file = Path.Combine(Repository(), "docs", "concepts", "states.md");
        string text = File.ReadAllText(file).ReplaceLineEndings("\n");
        const string Begin = "<!-- table: begin -->\n", End = "<!-- table: end -->";
        int from = text.IndexOf(Begin, StringComparison.Ordinal) + Begin.Length, to = text.IndexOf(End, StringComparison.Ordinal);
        if (Environment.GetEnvironmentVariable("DROVER_UPDATE_DOCS") == "1")
            File.WriteAllText(file, text = text[..from] + TaskStates.Markdown() + text[to..]);
        Assert.Contains(Begin + TaskStates.Markdown() + End, text, StringComparison.Ordinal);
        foreach (ShownStatus shown in Enum.GetValues<ShownStatus>())
            Assert.Contains($"`{shown.Word()}`", text, StringComparison.Ordinal);
    }

    [Fact]
    public void The_database_refuses_a_status_that_is_not_in_the_table()
    {
        using var db = new TestDatabase();
        string task = db.Add("Write the parser");
        Assert.ThrowsAny<System.Data.Common.DbException>(() => db.Session.Execute("UPDATE {d}tasks SET status = 'ready' WHERE id = @id", ("@id", task)));
        Assert.ThrowsAny<System.Data.Common.DbException>(() => db.Session.Execute("UPDATE {d}tasks SET status = 'completed' WHERE id = @id", ("@id", task)));
    }

    internal static string Repository()
    {
        string? folder = AppContext.BaseDirectory;
        while (folder is not null && !File.Exists(Path.Combine(folder, "Drover.slnx")))
            folder = Path.GetDirectoryName(folder);
        return folder ?? throw new InvalidOperationException("Drover.slnx not found above the tests");
    }

    private static long Events(TestDatabase db) => db.Session.Number("SELECT COUNT(*) FROM {d}task_events");

    private static (RunRow Run, string Task, int Attempt) Reach(TestDatabase db, StoredStatus status)
    {
        const string P = TestDatabase.Project;
        string task = db.Add("Write the parser");
        RunRow run = db.StartRun();
        if (status == StoredStatus.Open)
        {
            // Open with an attempt behind it, so that the attempt's commands have something to name.
            ClaimedTask first = Assert.Single(db.Claim(run));
            Assert.True(db.Transact(s => Board.ReleaseAttempt(s, P, task, first.Attempt, "interrupt")));
            return (run, task, first.Attempt);
        }
        ClaimedTask claimed = Assert.Single(db.Claim(run));
        if (status == StoredStatus.Claimed)
            return (run, task, claimed.Attempt);
        db.Start(claimed);
        db.Transact(s => status switch
        {
            StoredStatus.Paused => Board.Pause(s, P, task, 1, PauseReason.Deletions, "Really?"),
            StoredStatus.Completed => Board.FinishNoOp(s, P, task, 1, "nothing to do"),
            StoredStatus.Failed => Board.FailAttempt(s, P, task, 1, FailureKind.Permanent, "no", 3).Applied,
            StoredStatus.Cancelled => Board.Cancel(s, P, task).Result == CancelResult.Cancelled,
            _ => true,
        });
        Assert.Equal(status, db.Task(task).Status);
        return (run, task, claimed.Attempt);
    }

    private static bool Apply(TestDatabase db, RunRow run, string task, int attempt, TaskCommand command)
    {
        const string P = TestDatabase.Project;
        try
        {
            return db.Transact(s => command switch
            {
                TaskCommand.Claim => Board.ClaimRunnable(s, P, run.Id, 5).Count == 1,
                TaskCommand.Start => Board.StartAttempt(s, P, task, attempt, new AttemptFacts()),
                TaskCommand.Pause => Board.Pause(s, P, task, attempt, PauseReason.Secret, "A key?"),
                TaskCommand.Land => Board.MarkLanded(s, P, task, attempt, "feed"),
                TaskCommand.NoOp => Board.FinishNoOp(s, P, task, attempt, "nothing"),
                TaskCommand.FailAttempt => Board.FailAttempt(s, P, task, attempt, FailureKind.Agent, "no", 3).Applied,
                TaskCommand.FailTask => FailTask(s, run, task, attempt),
                TaskCommand.Release => Board.ReleaseAttempt(s, P, task, attempt, "interrupt"),
                TaskCommand.Cancel => Board.Cancel(s, P, task) is not null,
                TaskCommand.Retry => Board.Retry(s, P, task, false, 3) is not null,
                TaskCommand.ResolveAccept => Board.Resolve(s, P, task, Resolution.Accept) is not null,
                TaskCommand.ResolveContinue => Board.Resolve(s, P, task, Resolution.Continue, "note") is not null,
                TaskCommand.ResolveAbandon => Board.Resolve(s, P, task, Resolution.Abandon) is not null,
                _ => throw new InvalidOperationException(command.ToString()),
            });
        }
        catch (DroverException e) when (e.Code == ErrorCode.Conflict)
        {
            return false;
        }
    }

    // An open task fails only when the limit was lowered after its attempts were made; the claim finds that out.
    private static bool FailTask(Drover.Workflows.Storage.SqlSession s, RunRow run, string task, int attempt)
    {
        const string P = TestDatabase.Project;
        if (Board.Get(s, P, task).Status != StoredStatus.Open)
            return Board.FailAttempt(s, P, task, attempt, FailureKind.Permanent, "no", 3).Applied;
        s.Execute("UPDATE {d}tasks SET continues = NULL, max_attempts = 1 WHERE id = @id", ("@id", task));
        Assert.Empty(Board.ClaimRunnable(s, P, run.Id, 5));
        return Board.Get(s, P, task).Status == StoredStatus.Failed;
    }
}
