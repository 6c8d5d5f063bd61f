using Drover.Orchestrator.Backlog;
using Drover.Workflows.Storage;
using Microsoft.Data.Sqlite;

namespace Drover.Orchestrator.Tests.Backlog;

/// <summary>To be replaced by SqliteDialect: one in-memory database with the orchestrator's tables and a clock that tests move.</summary>
internal sealed class TestDatabase : IDisposable
{
    public const string Project = "11111111-2222-4333-8444-555555555555";
    private readonly SqliteConnection _connection;

    static TestDatabase() => SQLitePCL.raw.SetProvider(new SQLitePCL.SQLite3Provider_e_sqlite3());

    public TestDatabase()
    {
        _connection = new SqliteConnection("Data Source=:memory:;Foreign Keys=True;Pooling=False");
        _connection.Open();
        Session = new SqlSession(_connection, new Dialect(), Clock);
        foreach (string statement in BacklogSchema.Migrations.Scripts[0].Split("\n;;", StringSplitOptions.TrimEntries))
            Session.Execute(statement);
    }

    public FakeClock Clock { get; } = new();

    public SqlSession Session { get; }

    /// <summary>Runs work as one transaction: what throws leaves nothing behind.</summary>
    public T Transact<T>(Func<SqlSession, T> work)
    {
        Run("BEGIN IMMEDIATE");
        try
        {
            T result = work(Session);
            Run("COMMIT");
            return result;
        }
        catch
        {
            Run("ROLLBACK");
            throw;
        }
    }

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

    public void Dispose() => Session.Dispose();

    private void Run(string sql)
    {
        using SqliteCommand command = _connection.CreateCommand();
        command.CommandText = sql;
        command.ExecuteNonQuery();
    }

    internal sealed class FakeClock : TimeProvider
    {
        private DateTimeOffset _now = new(2030, 1, 1, 0, 0, 0, TimeSpan.Zero);

        public override DateTimeOffset GetUtcNow() => _now;

        public void Advance(TimeSpan by) => _now += by;
    }

    private sealed class Dialect : SqlDialect
    {
        public override string Name => "SQLite";
        public override string Location => ":memory:";
        protected override string TablePrefix => "";
        protected override string OwnPrefix => "drover_";
        protected override string Now => "@now";
        protected override string SkipLocked => "";
        public override string InList(string column, string parameter) => throw new NotSupportedException();
        public override object ListValue(IReadOnlyCollection<string> values) => throw new NotSupportedException();
        public override SqlErrorKind Classify(Exception error) => SqlErrorKind.Other;
        public override ValueTask<T> ReadAsync<T>(TimeProvider time, Func<SqlSession, T> work, CancellationToken cancellationToken) => throw new NotSupportedException();
        protected override WriterSession OpenWriter(TimeProvider time) => throw new NotSupportedException();
        protected override IReadOnlyList<string> EngineScripts => [];
        protected override IDisposable? TryLockExecutor(string executorId) => throw new NotSupportedException();
        protected override bool IsExecutorDead(string executorId) => throw new NotSupportedException();
        protected override void Nudge() { }
        protected override IDisposable Listen(Action onSignal) => throw new NotSupportedException();
        public override ValueTask DisposeAsync() => default;
    }
}
