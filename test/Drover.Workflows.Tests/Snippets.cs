using System.Text.Json.Serialization;
using Drover.TestKit;
using Drover.Workflows.Storage;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging.Abstractions;

namespace Drover.Workflows.Tests;

#region input
public sealed record Order(string Id, string Article, int Amount, TimeSpan Hold);

[JsonSerializable(typeof(Order))]
internal sealed partial class ShopJson : JsonSerializerContext;
#endregion

/// <summary>
/// The code in docs/concepts/workflows.md. Each block there stands here, word for word (<see cref="DocumentationTests"/>), so it
/// compiles; the facts below run it.
/// </summary>
public sealed class Snippets
{
    private static readonly List<string> Charged = [];
    private static readonly List<string> Printed = [];

    #region queue
    private static readonly WorkflowQueue Parcels = new("parcels") { Concurrency = 4 };
    #endregion

    #region define
    public static readonly Workflow<Order, string> Ship = Workflow.Define<Order, string>("ship", async (context, order) =>
    {
        string payment = await context.StepAsync("charge", step => ChargeAsync(order, key: $"{step.WorkflowId}:{step.StepId}", step.CancellationToken));
        await context.SleepAsync(order.Hold);
        return await context.StepAsync("print label", step => PrintAsync(order, payment, step.CancellationToken));
    });
    #endregion

    #region retries
    private static readonly StepOptions Patient = new()
    {
        Attempts = 5,
        Backoff = TimeSpan.FromMilliseconds(200),
        MaxBackoff = TimeSpan.FromSeconds(10),
        RetryIf = error => error is HttpRequestException,
    };

    public static readonly Workflow<string, int> Fetch = Workflow.Define<string, int>("fetch", async (context, article) =>
        await context.StepAsync("ask the supplier", step => AskAsync(article, step.Attempt, step.CancellationToken), Patient));
    #endregion

    #region transact
    private static readonly MigrationSet Stock = new("shop", ["CREATE TABLE shop_stock (article TEXT PRIMARY KEY, available BIGINT NOT NULL)"]);

    public static readonly Workflow<Order, bool> Reserve = Workflow.Define<Order, bool>("reserve", async (context, order) =>
        await context.TransactAsync("take from stock", tx =>
        {
            int changed = tx.Session.Execute("UPDATE shop_stock SET available = available - @n WHERE article = @article AND available >= @n2",
                ("@n", order.Amount), ("@article", order.Article), ("@n2", order.Amount));
            if (changed > 0)
                tx.Enqueue(Parcels, Ship, order, new() { WorkflowId = $"ship:{order.Id}" });
            return changed > 0;
        }));
    #endregion

    #region messages
    public static readonly Workflow<Order, string> Approve = Workflow.Define<Order, string>("approve", async (context, order) =>
    {
        string? answer = await context.ReceiveAsync<string>("approval", timeout: TimeSpan.FromDays(3));
        return answer ?? "nobody answered";
    });
    #endregion

    #region parallel
    public static readonly Workflow<Order, int> Quote = Workflow.Define<Order, int>("quote", async (context, order) =>
    {
        Task<int> price = context.StepAsync("price", _ => Task.FromResult(order.Amount * 10));
        Task<int> freight = context.StepAsync("freight", _ => Task.FromResult(5));
        int[] both = await Task.WhenAll(price, freight);
        return await context.StepAsync("total", _ => Task.FromResult(both.Sum()));
    });
    #endregion

    #region refused
    public static readonly Workflow<Order, int> Race = Workflow.Define<Order, int>("race", async (context, order) =>
    {
        async Task<int> Branch(string supplier)
        {
            int price = await context.StepAsync($"ask {supplier}", _ => Task.FromResult(order.Amount));
            return await context.StepAsync($"haggle with {supplier}", _ => Task.FromResult(price - 1));
        }
        int[] offers = await Task.WhenAll(Branch("north"), Branch("south"));
        return offers.Min();
    });
    #endregion

    #region again
    public static readonly Workflow<int, int> Count = Workflow.Define<int, int>("count", CountAsync);

    private static async Task<int> CountAsync(WorkflowContext context, int from)
    {
        for (int i = from; i < from + 100; i++)
        {
            int n = i;
            if (await context.StepAsync("is it the last", _ => Task.FromResult(n == 250)))
                return n;
        }
        return await context.ContinueAsNewAsync(Count, from + 100);
    }
    #endregion

    private static Task<string> ChargeAsync(Order order, string key, CancellationToken cancellationToken)
    {
        cancellationToken.ThrowIfCancellationRequested();
        lock (Charged)
            Charged.Add(key);
        return Task.FromResult($"paid {order.Amount}");
    }

    private static Task<string> PrintAsync(Order order, string payment, CancellationToken cancellationToken)
    {
        cancellationToken.ThrowIfCancellationRequested();
        lock (Printed)
            Printed.Add(order.Id);
        return Task.FromResult($"{order.Article}, {payment}");
    }

    private static Task<int> AskAsync(string article, int attempt, CancellationToken cancellationToken)
    {
        cancellationToken.ThrowIfCancellationRequested();
        return attempt < 3 ? throw new HttpRequestException($"no answer about {article}") : Task.FromResult(attempt);
    }

    private static Order Tea(string id) => new(id, "tea", 3, TimeSpan.FromMilliseconds(20));

    private static WorkflowEngineOptions Options(string path)
    {
        var options = new WorkflowEngineOptions { ApplicationName = "shop" };
        options.UseSqlite(path).UseJson(ShopJson.Default).AddQueue(Parcels);
        options.AddWorkflow(Ship).AddWorkflow(Fetch).AddWorkflow(Reserve).AddWorkflow(Approve).AddWorkflow(Quote).AddWorkflow(Race).AddWorkflow(Count);
        options.Migrations.Add(Stock);
        return options;
    }

    private static WorkflowEngine Engine(string path) => new(Options(path), new ServiceCollection().BuildServiceProvider(), NullLogger<WorkflowEngine>.Instance);

    [Fact]
    public async Task The_first_example_runs()
    {
        using var folder = new TempFolder();
        string path = folder.File("shop.db");
        IServiceProvider services = new ServiceCollection().BuildServiceProvider();
        Order order = Tea("o-1");

        #region engine
        var options = new WorkflowEngineOptions { ApplicationName = "shop" };
        options.UseSqlite(path).UseJson(ShopJson.Default).AddWorkflow(Ship).AddQueue(Parcels);
        await using var engine = new WorkflowEngine(options, services, NullLogger<WorkflowEngine>.Instance);
        await engine.StartAsync();
        WorkflowHandle<string> handle = await engine.Client.StartAsync(Ship, order, new() { WorkflowId = $"ship:{order.Id}" });
        string label = await handle.ResultAsync();
        #endregion

        Assert.Equal("tea, paid 3", label);
        lock (Charged)
            Assert.Contains("ship:o-1:0", Charged);
    }

    [Fact]
    public async Task The_hosted_example_runs()
    {
        using var folder = new TempFolder();
        string path = folder.File("shop.db");
        HostApplicationBuilder builder = Host.CreateEmptyApplicationBuilder(new());

        #region hosting
        builder.Services.AddDroverWorkflows(options => options
            .UseSqlite(path).UseJson(ShopJson.Default)
            .AddWorkflow(Ship).AddQueue(Parcels));
        #endregion

        using IHost host = builder.Build();
        await host.StartAsync();
        var client = host.Services.GetRequiredService<WorkflowClient>();
        Assert.Equal("tea, paid 3", await (await client.StartAsync(Ship, Tea("o-2"))).ResultAsync());
        await host.StopAsync();
    }

    [Fact]
    public async Task Transactions_queues_and_retries_run()
    {
        using var folder = new TempFolder();
        await using WorkflowEngine engine = Engine(folder.File("shop.db"));
        await engine.StartAsync();
        WorkflowClient client = engine.Client;
        await client.TransactAsync(tx => tx.Session.Execute("INSERT INTO shop_stock VALUES ('tea', 4)"));
        Order order = Tea("o-3");
        Assert.True(await (await client.StartAsync(Reserve, order)).ResultAsync());
        Assert.False(await (await client.StartAsync(Reserve, order)).ResultAsync());
        Assert.Equal("tea, paid 3", await client.Handle<string>("ship:o-3").ResultAsync());
        Assert.Equal(3, await (await client.StartAsync(Fetch, "tea")).ResultAsync());

        #region enqueue
        WorkflowHandle<string> parcel = await client.EnqueueAsync(Parcels, Ship, order, new()
        {
            WorkflowId = $"parcel:{order.Id}",
            DeduplicationId = order.Id,
            Priority = 10,
            Timeout = TimeSpan.FromHours(2),
        });
        #endregion

        Assert.Equal("tea, paid 3", await parcel.ResultAsync());
    }

    [Fact]
    public async Task Messages_and_cancellation_run()
    {
        using var folder = new TempFolder();
        await using WorkflowEngine engine = Engine(folder.File("shop.db"));
        await engine.StartAsync();
        WorkflowClient client = engine.Client;
        WorkflowHandle<string> handle = await client.StartAsync(Approve, Tea("o-4"));

        #region send
        await client.SendAsync(handle.Id, "yes", topic: "approval", idempotencyKey: "mail-17");
        #endregion

        Assert.Equal("yes", await handle.ResultAsync());
        WorkflowHandle<string> second = await client.StartAsync(Approve, Tea("o-5"));

        #region cancel
        await client.CancelAsync([second.Id]);
        WorkflowStatus? status = await client.StatusAsync(second.Id);
        await client.ResumeAsync([second.Id]);
        #endregion

        Assert.Equal(WorkflowState.Cancelled, status?.State);
        await client.SendAsync(second.Id, "late", "approval");
        Assert.Equal("late", await second.ResultAsync());
    }

    [Fact]
    public async Task Parallel_steps_run_and_two_branches_that_go_on_are_refused()
    {
        using var folder = new TempFolder();
        await using WorkflowEngine engine = Engine(folder.File("shop.db"));
        await engine.StartAsync();
        Assert.Equal(35, await (await engine.Client.StartAsync(Quote, Tea("o-6"))).ResultAsync());
        var error = await Assert.ThrowsAsync<WorkflowFailedException>(async () => await (await engine.Client.StartAsync(Race, Tea("o-7"))).ResultAsync());
        Assert.Equal(ErrorCode.NonDeterminism, error.Code);
        Assert.Equal(250, await (await engine.Client.StartAsync(Count, 0)).ResultAsync());
    }
}
