using Drover.Orchestrator.Backlog;
using Drover.TestKit;
using Drover.Workflows.Storage;

namespace Drover.Orchestrator.Tests.Backlog;

/// <summary>A backlog on a real SQLite file, with a clock that tests move.</summary>
internal sealed class TestDatabase : IDisposable
{
    public const string Project = "11111111-2222-4333-8444-555555555555";
    private readonly TransactionalDatabase _database;

    public TestDatabase() => _database = new TransactionalDatabase(Clock, BacklogSchema.Migrations);

    public FakeClock Clock { get; } = new();

    public SqlSession Session => _database.Session;

    public T Transact<T>(Func<SqlSession, T> work) => _database.Transact(work);

    public string Add(string title, string? epic = null, string? parent = null, int priority = 0, params string[] blockedBy) =>
        Transact(s => Board.AddTask(s, Project, new NewTask { Title = title, Epic = epic, Parent = parent, Priority = priority, BlockedBy = blockedBy }).Id);

    public TaskRow Task(string id) => Board.Get(Session, Project, id);

    public RunRow StartRun(string? epic = null, int workers = 4, int maxAttempts = 3, bool continueOnFailure = true) => Transact(s => Board.OpenRun(s, Project,
        new RunOptions { Target = "main" }, new RunOptions { Epic = epic, Workers = workers, MaxAttempts = maxAttempts, ContinueOnFailure = continueOnFailure }, "executor-1").Run);

    public IReadOnlyList<ClaimedTask> Claim(RunRow run, int room = 100) => Transact(s => Board.ClaimRunnable(s, Project, run.Id, room));

    public void Start(ClaimedTask claimed) => Assert.True(Transact(s => Board.StartAttempt(s, Project, claimed.Task, claimed.Attempt, new AttemptFacts())));

    public void Land(ClaimedTask claimed, string oid = "feed")
    {
        Start(claimed);
        Assert.True(Transact(s => Board.RecordWork(s, Project, claimed.Task, claimed.Attempt, "w" + oid, "t" + oid)));
        Assert.True(Transact(s => Board.InsertCandidate(s, Project, claimed.Task, claimed.Attempt, "main", "w" + oid, "t" + oid)));
        Assert.True(Transact(s => Board.RecordIntent(s, Project, claimed.Task, claimed.Attempt, oid, "base", "message", "0 +0000")));
        Assert.True(Transact(s => Board.MarkLanded(s, Project, claimed.Task, claimed.Attempt, oid)));
    }

    public void Dispose() => _database.Dispose();

    internal sealed class FakeClock : TimeProvider
    {
        private DateTimeOffset _now = new(2030, 1, 1, 0, 0, 0, TimeSpan.Zero);

        public override DateTimeOffset GetUtcNow() => _now;

        public void Advance(TimeSpan by) => _now += by;
    }
}
